"""The baseline: plain LoRA SFT of the base with PEFT, as a good trainer would write it.

No attention mask, since right padding behind causal attention changes nothing and the kernels are faster without; no
key/value cache; logits at supervised positions only. The loss, clipping, optimizer and schedule are those of
`memgen.training.weaver.sft`.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from memgen.backbone.loading import Backbone
from memgen.config import MemoryConfig, TrainingConfig
from memgen.training.examples import Example
from memgen.training.losses import mean_by_example, token_nll
from memgen.training.weaver.sft import warmed_cosine

SHAPE = MemoryConfig(target_modules=("q_proj", "v_proj"))
"""Rank and scaling of a weaver, on q and v as is usual: on all linear layers a step takes longer."""
WIDE_SHAPE = MemoryConfig()
"""The same on all linear layers, as a weaver has it."""
_NO_TARGET = -1


class PlainLora:
    """A copy of the base with a trainable LoRA, and its optimizer."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        learning_rate: float,
        target_modules: Sequence[str] = SHAPE.target_modules,
        seed: int = 0,
        checkpointing: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        self.model = get_peft_model(
            copy.deepcopy(backbone.model),
            LoraConfig(
                r=SHAPE.rank,
                lora_alpha=SHAPE.alpha,
                target_modules=list(target_modules),
                bias="none",
                task_type="CAUSAL_LM",
            ),
        )
        if checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.model.enable_input_require_grads()
            self.model.train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=0.0)
        self._base: Any = self.model.get_base_model()
        self._learning_rate = learning_rate
        self._device = backbone.device
        self.steps = 0
        """Optimizer steps taken; the schedule's place."""

    def step(self, batch: Sequence[Example], *, schedule: TrainingConfig | None = None) -> float:
        """One optimizer step; returns the loss."""
        if schedule is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate * warmed_cosine(self.steps, schedule)
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.parameters, TrainingConfig().max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return float(loss.detach())

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Mean over the examples of their mean token loss, in nats."""
        ids, targets = _right_padded(batch, self._device)
        hidden = self._base.model(input_ids=ids, use_cache=False).last_hidden_state
        supervised = targets != _NO_TARGET
        nll = token_nll(self._base.lm_head(hidden[supervised]), targets[supervised])
        rows = torch.arange(len(batch), device=self._device)[:, None].expand_as(targets)
        return mean_by_example(nll, rows[supervised], len(batch)).mean()


def _right_padded(batch: Sequence[Example], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids `(B, T)` without each row's last, and at each the token to be predicted or `_NO_TARGET`."""
    width = max(example.tokens for example in batch) - 1
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    targets = torch.full_like(ids, _NO_TARGET)
    for row, example in enumerate(batch):
        whole = torch.tensor([*example.prompt_ids, *example.target_ids])
        ids[row, : len(whole) - 1] = whole[:-1]
        targets[row, len(example.prompt_ids) - 1 : len(whole) - 1] = whole[len(example.prompt_ids) :]
    return ids.to(device), targets.to(device)
