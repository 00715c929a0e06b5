"""`client.adapters`, `.aliases`, `.retention`: named lineages of memories, where aliases stand, what is kept."""

from typing import Unpack

from memgen_client.answers import one, page, rows
from memgen_client.calls import Call, ModeT, Noun, Pages, keyed, many, once
from memgen_client.json_values import given
from memgen_client.models.adapters import Adapter, AdapterChange, RetentionPlan, Scores
from memgen_client.models.rows import Page, Rows
from memgen_client.models.versions import AliasAt, AliasMove
from memgen_client.options import AdapterSettings, NewAdapter
from memgen_client.paths import CHAMPION, path

_REMOVAL_SECONDS = 600.0


class Adapters(Noun[ModeT]):
    @once
    def create(self, name: str, *, idempotency_key: str | None = None, **options: Unpack[NewAdapter]) -> Call[Adapter]:
        """Bound to the base that the service serves."""
        body = {"name": name, **options}
        return Call("POST", path("adapters"), one(Adapter), body=body, headers=keyed(idempotency_key))

    @once
    def list(self) -> Call[Rows[Adapter]]:
        return Call("GET", path("adapters"), rows(Adapter))

    @once
    def get(self, name: str) -> Call[Adapter]:
        return Call("GET", path("adapters", name), one(Adapter))

    @once
    def change(self, name: str, *, reason: str = "", **settings: Unpack[AdapterSettings]) -> Call[Adapter]:
        """What is left out stays. Gates that have run keep the terms that they were judged by."""
        body = {**settings, "reason": reason}
        return Call("PATCH", path("adapters", name), one(Adapter), body=body, harmless=True)

    @once
    def changes(self, name: str) -> Call[Rows[AdapterChange]]:
        """Who changed which settings, oldest first."""
        return Call("GET", path("adapters", name, "changes"), rows(AdapterChange))

    @once
    def scores(self, name: str) -> Call[Scores]:
        """The matrix R with ACC, BWT, FWT and forgetting."""
        return Call("GET", path("adapters", name, "scores"), one(Scores))


class Aliases(Noun[ModeT]):
    @once
    def get(self, adapter: str, alias: str = CHAMPION, *, at: str | None = None) -> Call[AliasAt]:
        """Which version the alias named at a time (ISO 8601 with its zone), or names now."""
        return Call("GET", path("adapters", adapter, "aliases", alias), one(AliasAt), params={"at": at})

    @once
    def history(
        self, adapter: str, alias: str = CHAMPION, *, limit: int = 50, cursor: str | None = None
    ) -> Call[Page[AliasMove]]:
        """A page of the alias's moves, oldest first."""
        return _history(adapter, alias).at(cursor, limit)

    @many
    def all_history(self, adapter: str, alias: str = CHAMPION) -> Pages[AliasMove]:
        """Every move of the alias, oldest first."""
        return Pages(_history(adapter, alias))

    @once
    def promote(
        self, adapter: str, version: int, *, alias: str = CHAMPION, expected: int | None = None, reason: str = ""
    ) -> Call[AliasMove]:
        """Move an alias to a version that passed its gate.

        Args:
            expected: the version that you believe is current, 0 for none; Conflict if it is not.
        """
        body = {"version": version, "expected_version": expected, "reason": reason}
        return Call("POST", path("adapters", adapter, "aliases", alias, "promote"), one(AliasMove), body=body)

    @once
    def rollback(
        self,
        adapter: str,
        *,
        alias: str = CHAMPION,
        to: int | None = None,
        at: str | None = None,
        expected: int | None = None,
        reason: str = "",
    ) -> Call[AliasMove]:
        """Move the alias back; `evidence["skipped"]` says what was passed over and why.

        Args:
            to: a version of the alias's history; by default the last that served before and still may.
            at: or a time (ISO 8601 with its zone), to go back to the version that the alias named then.
            expected: as for `promote`.
        """
        body = {"to_version": to, "to_time": at, "expected_version": expected, "reason": reason}
        return Call("POST", path("adapters", adapter, "aliases", alias, "rollback"), one(AliasMove), body=body)


class Retention(Noun[ModeT]):
    @once
    def get(self, adapter: str) -> Call[RetentionPlan]:
        """The policy, and what it would remove now."""
        return Call("GET", path("adapters", adapter, "retention"), one(RetentionPlan))

    @once
    def change(self, adapter: str, keep_last: int) -> Call[RetentionPlan]:
        """Set the policy; nothing is removed before `apply`."""
        return Call("PUT", path("adapters", adapter, "retention"), one(RetentionPlan), body={"keep_last": keep_last})

    @once
    def apply(
        self, adapter: str, *, keep_last: int | None = None, dry_run: bool = True, reason: str | None = None
    ) -> Call[RetentionPlan]:
        """Remove the bytes of versions that nothing refers to. By default a dry run."""
        body = {"keep_last": keep_last, "dry_run": dry_run, **given(reason=reason)}
        return Call(
            "POST",
            path("adapters", adapter, "retention", "runs"),
            one(RetentionPlan),
            body=body,
            seconds=_REMOVAL_SECONDS,
        )


def _history(adapter: str, alias: str) -> Call[Page[AliasMove]]:
    return Call("GET", path("adapters", adapter, "aliases", alias, "history"), page(AliasMove))
