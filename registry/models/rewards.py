"""Rows of rewards: all that were given to a trajectory. Which of them is in effect stands at the trajectory itself."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.declarative import Base, created_at_column
from registry.models.routes import Feedback


class TrajectoryReward(Base):
    """One reward of a trajectory: what its upload said, what feedback on its run or on an answer of it reported, or
    what a judge gave. The first of its source stands."""

    __tablename__ = "trajectory_rewards"
    __table_args__ = (
        UniqueConstraint("trajectory_id", "source", "completion_id", postgresql_nulls_not_distinct=True),
        CheckConstraint("reward > '-infinity' and reward < 'infinity'", name="reward"),
    )
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    """Order of arrival."""
    trajectory_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("trajectories.id", ondelete="CASCADE"))
    source: Mapped[str]
    completion_id: Mapped[str | None]
    """The answer that was rewarded; null where the whole run was."""
    reward: Mapped[float]
    comment: Mapped[str]
    """Empty where feedback gave it: that keeps its own."""
    actor: Mapped[str]
    feedback_seq: Mapped[int | None] = mapped_column(ForeignKey("feedback.seq", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = created_at_column()
    feedback: Mapped[Feedback | None] = relationship()
