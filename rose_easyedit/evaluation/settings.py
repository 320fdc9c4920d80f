"""How a model is asked: everything that two evaluations must share to be compared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from rose_easyedit.config.checks import setting_faults
from rose_easyedit.config.rules import setting
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import FORMS
from rose_easyedit.evaluation.queries import ALL_FORMS

STOP_RULE = "end-of-turn token"
AUTOCAST = ("bfloat16", "float16")


# not frozen, since Hydra composes values into it; and it imports no torch, for `--help`
@dataclass
class EvaluationSettings:
    """How a model is asked; two evaluations are comparable when these agree.

    An answer ends with the model's own end-of-turn token or at `max_new_tokens`, and never at a
    full stop, which would cut "St. Louis" and "U.S." short.

    Attributes:
        max_new_tokens: Most tokens per answer.
        batch_size: Rows that are computed at once.
        autocast: Data type of the matrix products, of `AUTOCAST`; None keeps the weights'.
        forms: The forms that are asked, of `queries.ALL_FORMS`.
        system_prompt: Of every chat; None leaves it to the chat template.
        template_arguments: What the chat template is told besides (`chat.arguments_used`).
        teacher_forcing: Also read every target behind its query; an eighth more time.
        locality_text: Also compare greedy answers to the locality prompts, a generation each: up
            to twice the time.
    """

    max_new_tokens: int = setting(24, above=0)
    batch_size: int = setting(64, above=0)
    autocast: str | None = setting(None, words=AUTOCAST)
    forms: tuple[str, ...] = FORMS
    system_prompt: str | None = None
    template_arguments: dict[str, Any] = field(default_factory=dict)
    teacher_forcing: bool = True
    locality_text: bool = False

    def __post_init__(self) -> None:
        self.forms = tuple(self.forms)
        faults = setting_faults(self)
        faults += [
            f"forms has {form!r}; choose among {', '.join(ALL_FORMS)}"
            for form in self.forms
            if form not in ALL_FORMS
        ]
        if not self.forms:
            faults.append(f"forms is empty; choose among {', '.join(ALL_FORMS)}")
        if faults:
            raise RoSEError.of("The settings of the evaluation cannot be used:", faults)

    def on_record(self, model: Any, tokenizer: Any) -> dict[str, Any]:
        """The settings as plain data, with what of the model and tokenizer belongs to them."""
        from rose_easyedit.forward.generation import stop_tokens
        from rose_easyedit.models.offload import computing_device
        from rose_easyedit.text.chat import arguments_used

        template = tokenizer.chat_template
        return {
            "forms": list(self.forms),
            "system_prompt": self.system_prompt,
            "chat_template_sha256": None if template is None else _sha256(str(template)),
            "base_model": template is None,  # asked "Question: ... Answer:"
            "template_arguments": arguments_used(tokenizer, self.template_arguments),
            "decoding": "greedy",
            "stop": STOP_RULE,
            "stop_tokens": tokenizer.convert_ids_to_tokens(stop_tokens(model, tokenizer)),
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch_size,
            "weights": str(model.dtype).removeprefix("torch."),
            "autocast": self.autocast,
            "device": computing_device(model).type,
            "teacher_forcing": self.teacher_forcing,
            "locality_text": self.locality_text,
        }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
