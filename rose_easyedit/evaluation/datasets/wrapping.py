"""Questions and instructions for facts whose data set has none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rose_easyedit.evaluation.facts import Fact

# "{}" stands for the statement. These wordings are for the evaluation alone: none is like the
# contexts in which an edit is learned (rose_easyedit.method.contexts): "complete", "finish".
SENTENCE_QUESTIONS = ('What completes this sentence? "{} ..."',)
SENTENCE_INSTRUCTIONS = (
    "How does this go on? {}",
    "Which words come next? {} ...",
)
# A statement that is a question, as in zsRE, is no sentence that could be completed.
ANSWER_QUESTIONS = ("{}",)
ANSWER_INSTRUCTIONS = (
    "Answer this question: {}",
    "Give a short answer to the following question: {}",
)


def with_wrapped_forms(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """The facts, each with a question and instructions, wrapped around its statement if need be.

    The wrapper knows nothing of the relation: the question is 'What completes this sentence?
    "<statement> ..."', the instructions are "How does this go on? <statement>" and "Which words
    come next? <statement> ...". A statement that is itself a question is put as it is, and in
    instructions to answer it.

    A form that the data set has of its own stays as it is; the forms made here are named in
    `Fact.wrapped`.
    """
    return tuple(_wrapped(fact) for fact in facts)


def _wrapped(fact: Fact) -> Fact:
    asks = fact.prompt.endswith("?")
    questions = ANSWER_QUESTIONS if asks else SENTENCE_QUESTIONS
    instructions = ANSWER_INSTRUCTIONS if asks else SENTENCE_INSTRUCTIONS
    forms = {"question": fact.questions, "instruction": fact.instructions}
    return replace(
        fact,
        questions=fact.questions or _fill(questions, fact.prompt),
        instructions=fact.instructions or _fill(instructions, fact.prompt),
        wrapped=fact.wrapped.union(form for form, texts in forms.items() if not texts),
    )


def _fill(wrappers: Sequence[str], statement: str) -> tuple[str, ...]:
    return tuple(wrapper.format(statement) for wrapper in wrappers)
