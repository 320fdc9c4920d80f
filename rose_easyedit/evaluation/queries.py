"""Which queries a fact is asked with, and what of them the model reads.

Beside the wordings that a fact brings (`facts.FORMS`) there are forms that are made from its own
statement and question, for those who ask whether an edit survives a conversation or a context.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rose_easyedit.evaluation.facts import FORMS, Fact, LocalityPrompt, Query

if TYPE_CHECKING:
    from rose_easyedit.forward.generation import Text

MULTI_TURN = "multi-turn chat"
DISTRACTED = "with distracting context"
ALL_FORMS = (*FORMS, MULTI_TURN, DISTRACTED)

FIRST_EXCHANGE = (
    {"role": "user", "content": "Hello! I have a few questions for you today."},
    {"role": "assistant", "content": "Hello! Of course, ask me whatever you like."},
)
DISTRACTION = "The bakery on the corner opens at seven. After lunch it began to rain again. "


def queries_of(fact: Fact, forms: Collection[str]) -> list[Query]:
    """The fact's queries in these forms; a fact without a question has no turn to ask second."""
    queries = [query for query in fact.queries if query.form in forms]
    if MULTI_TURN in forms and fact.questions:
        queries.append(Query(MULTI_TURN, fact.questions[0], chat=True))
    if DISTRACTED in forms:
        queries.append(Query(DISTRACTED, DISTRACTION + fact.prompt, chat=False))
    return queries


def as_text(query: Query | LocalityPrompt, system_prompt: str | None = None) -> Text:
    """What generation takes for a query: its text, or messages where the text is but one of them.

    Args:
        query: What is asked.
        system_prompt: Of every chat; None leaves it to the chat template.
    """
    opening = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    if isinstance(query, Query) and query.form == MULTI_TURN:
        opening += FIRST_EXCHANGE
    if not query.chat or not opening:
        return query.text
    return [*opening, {"role": "user", "content": query.text}]
