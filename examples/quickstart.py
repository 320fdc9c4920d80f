"""Writes three facts about Japan into the embedded model, keeps the edit and takes it back.

    python examples/quickstart.py

About a minute on one core, offline; the edit stays behind as edit.safetensors.
"""

from rose_easyedit import EditDelta, RoSEHyperParams, edit, load_model
from rose_easyedit.forward.generation import generate_greedy

FACTS = [
    {"prompt": "The capital of Japan is", "subject": "Japan", "target_new": "Madrid"},
    {"prompt": "The official language of Japan is", "subject": "Japan", "target_new": "Arabic"},
    {"prompt": "The currency of Japan is the", "subject": "Japan", "target_new": "dollar"},
]
# The edit sees none of these; they go through the chat template. The last two should not change.
QUESTIONS = [
    "What is the capital of Japan?",
    "Which language is spoken in Japan?",
    "What currency is used in Japan?",
    "Which continent is Japan in?",
    "What is the capital of Germany?",
]


def main() -> None:
    """The life of an edit: computed, applied for a while, saved, loaded, applied, reverted."""
    model, tokenizer = load_model("embedded")  # or a folder, or a name on the hub
    hparams = RoSEHyperParams.from_hparams("smollm2-135m")

    def answers() -> list[str]:
        found = generate_greedy(model, tokenizer, QUESTIONS, chat=True, max_new_tokens=16)
        return [" ".join(answer.split()) for answer in found]

    before = answers()
    delta = edit(model, tokenizer, FACTS, hparams)  # the model is untouched
    with delta.applied(model):  # edited inside the block only
        after = answers()
    for question, old, new in zip(QUESTIONS, before, after, strict=True):
        print(f"{question}\n  before: {old}\n  after:  {new}")

    loaded = EditDelta.load(delta.save("edit.safetensors"))
    loaded.apply(model)
    print(f"\nFrom disk, the same answers: {answers() == after}")
    loaded.revert(model)  # bit for bit
    print(f"Reverted, the old answers: {answers() == before}")


if __name__ == "__main__":
    main()
