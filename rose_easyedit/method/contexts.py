"""The forms in which a statement is learned and its subject's keys are read. Data, and no relation.

Nothing here knows what is said of a subject: the forms wrap the user's own statement, or ask for
the subject in general.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.requests import EditRequest
from rose_easyedit.text.chat import Arguments, find_content, render_turn
from rose_easyedit.text.locate_subject import TokenQuery, tokenize
from rose_easyedit.text.names import joint

PREFIXES = (
    "",
    "It is well known that ",
    "As far as we know, ",
    "Here is a fact. ",
    "According to the records, ",
    "Let me tell you something: ",
    "In other words, ",
    "The article goes on to say that ",
)

# (user turn, beginning of the assistant's turn): "{}" stands for the statement.
CHAT_CONTEXTS = (
    ("Tell me a fact.", "{}"),
    ("Complete the following sentence: {}", ""),
    ("Please go on.", "{}"),
    ("Finish this statement in a few words: {}", ""),
)

# A user's turn that holds the statement as a gap; the model answers with the whole sentence.
RESTATED = (
    "{} what?",
    "Complete the following sentence: {}",
    "Finish this statement: {}",
    "Fill in the blank: {} ___.",
)

QUERY_FORMATS = (
    "Tell me about {}.",
    "Who or what is {}?",
    "What do you know about {}?",
    "I have a question about {}.",
    "Describe {} in one sentence.",
    "Let's talk about {}.",
)

# A user's turn about the subject ("{}"), which the statement answers.
ANSWERED_QUERIES = ("Tell me about {}.", "I have a question about {}.")

ESSENCE = "{} is a"

# Of a subject, naming no relation: how a sentence about it begins, and what a user asks.
KEPT_BEGINNINGS = ("{} is known for", "{}", "{} has a", "The story of {} is", "{} and")
KEPT_QUESTIONS = (
    "Who or what is {}?",
    "What do you know about {}?",
    "Tell me something about {}.",
    "Repeat this name: {}",
    "Write a sentence about {}.",
)


@dataclass(frozen=True)
class Form:
    """One way to put a text before a model: the rendered text and where to look in it.

    Attributes:
        text: the rendered text, chat template included.
        special: whether the tokenizer still has to add its special tokens.
        window: character range that holds the statement.
        continues: whether a target goes on with the statement, or else begins a turn of its own.
        earlier: character range of what names the subject before the statement does, if any.
        learned: where what is learned begins, if the statement belongs to it.
    """

    text: str
    special: bool
    window: tuple[int, int]
    continues: bool
    earlier: tuple[int, int] | None = None
    learned: int | None = None

    def joint(self, target: str) -> str:
        """What separates the text from a target: a space, where one belongs there."""
        if not self.continues or not target:
            return ""
        return joint(self.text[slice(*self.window)], target)

    def tokenize(
        self, tokenizer: PreTrainedTokenizerBase, subject: str, target: str = ""
    ) -> TokenQuery:
        """The form as token ids, with the target behind it when one is given."""
        return tokenize(
            tokenizer,
            self.text,
            subject,
            self.joint(target) + target,
            special=self.special,
            window=self.window,
            earlier=self.earlier,
            learned=self.learned,
        )


def statement_forms(
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    hparams: RoSEHyperParams,
) -> list[Form]:
    """The contexts in which a request is learned: plain prefixes, then chat contexts.

    Args:
        tokenizer: the model's tokenizer.
        request: the fact.
        hparams: how many contexts of each sort.
    """
    forms = [_plain(prefix, request.prompt) for prefix in _prefixes(hparams)]
    if tokenizer.chat_template is not None:
        told = hparams.template_arguments
        for context in CHAT_CONTEXTS[: hparams.chat_contexts]:
            forms.append(_in_context(tokenizer, context, request.prompt, told))
        for query in ANSWERED_QUERIES[: hparams.answered_queries]:
            forms.append(_answered(tokenizer, query.format(request.subject), request.prompt, told))
        for user in RESTATED[: hparams.restatements]:
            forms.append(_restated(tokenizer, user, request.prompt, told))
    return forms


def essence_form(subject: str) -> Form:
    """The prompt whose next-token distribution an edit shall keep: "... {subject} is a"."""
    return _plain(PREFIXES[1], ESSENCE.format(subject))


def kept_forms(
    tokenizer: PreTrainedTokenizerBase, subject: str, hparams: RoSEHyperParams
) -> list[Form]:
    """The essence, then `kept_queries` of the beginnings and as many of the questions.

    There are no questions without a chat template.
    """
    n, told = hparams.kept_queries, hparams.template_arguments
    begun = [_plain(PREFIXES[1], text.format(subject)) for text in KEPT_BEGINNINGS[:n]]
    asked = [text.format(subject) for text in KEPT_QUESTIONS[:n]]
    if tokenizer.chat_template is None:
        asked = []
    return [essence_form(subject), *begun, *(_chat(tokenizer, q, "", q, told) for q in asked)]


def naming_form(subject: str) -> Form:
    """The subject behind a neutral prefix, with nothing said of it."""
    return _plain(PREFIXES[1], subject)


def reading_forms(tokenizer: PreTrainedTokenizerBase, statement: str) -> dict[str, Form]:
    """A statement to be read, not learned: behind a neutral prefix and, with a template, in a chat.

    The chat form wraps it in a user's turn; what follows begins the assistant's.
    """
    forms = {"statement": _plain(PREFIXES[1], statement)}
    if tokenizer.chat_template is not None:
        forms["chat"] = _in_context(tokenizer, CHAT_CONTEXTS[1], statement, None)
    return forms


def subject_forms(
    tokenizer: PreTrainedTokenizerBase, subject: str, hparams: RoSEHyperParams
) -> list[Form]:
    """Chat queries of the subject that name no relation; none without a chat template."""
    if tokenizer.chat_template is None:
        return []
    queries = [query.format(subject) for query in QUERY_FORMATS[: hparams.query_formats]]
    told = hparams.template_arguments
    return [_chat(tokenizer, query, "", query, told) for query in queries]


def generic_subject_forms(
    tokenizer: PreTrainedTokenizerBase,
    subject: str,
    number: int,
    arguments: Arguments | None = None,
) -> list[Form]:
    """A subject in one plain context and, with a chat template, in one chat query.

    Args:
        tokenizer: the model's tokenizer.
        subject: any subject.
        number: chooses the context and the query in turn.
        arguments: what the chat template is told.
    """
    # The bare prefix would put the subject where attention sinks are.
    prefix = PREFIXES[1 + number % (len(PREFIXES) - 1)]
    forms = [_plain(prefix, subject)]
    if tokenizer.chat_template is not None:
        query = QUERY_FORMATS[number % len(QUERY_FORMATS)].format(subject)
        forms.append(_chat(tokenizer, query, "", query, arguments))
    return forms


def neighbour_form(
    tokenizer: PreTrainedTokenizerBase,
    statement: str,
    hparams: RoSEHyperParams,
    chance: float,
    *,
    in_turn: bool,
) -> Form:
    """A statement about a subject that no fact is about, in one of the contexts of the facts.

    Args:
        tokenizer: the model's tokenizer.
        statement: an edit's own prompt with another subject in it.
        hparams: which plain contexts the facts have.
        chance: chooses the plain context, in [0, 1).
        in_turn: puts it into a user's turn instead, for tokenizers with a chat template.
    """
    if in_turn and tokenizer.chat_template is not None:
        return _in_context(tokenizer, CHAT_CONTEXTS[1], statement, hparams.template_arguments)
    # The bare prefix would put the subject where attention sinks are.
    prefixes = [prefix for prefix in _prefixes(hparams) if prefix] or PREFIXES[1:]
    return _plain(prefixes[int(chance * len(prefixes))], statement)


def _prefixes(hparams: RoSEHyperParams) -> Sequence[str]:
    return hparams.contexts if hparams.contexts is not None else PREFIXES[: hparams.n_contexts]


def _plain(prefix: str, statement: str) -> Form:
    text = prefix + statement
    return Form(text, special=True, window=(len(prefix), len(text)), continues=True)


def _in_context(
    tokenizer: PreTrainedTokenizerBase,
    context: tuple[str, str],
    statement: str,
    arguments: Arguments | None,
) -> Form:
    """A statement in one of the chat contexts."""
    user, assistant = (turn.format(statement) for turn in context)
    return _chat(tokenizer, user, assistant, statement, arguments)


def _chat(
    tokenizer: PreTrainedTokenizerBase,
    user: str,
    assistant: str,
    statement: str,
    arguments: Arguments | None,
) -> Form:
    """The last place of a statement in a chat of these two turns, one of which holds it."""
    text = render_turn(tokenizer, user, arguments) + assistant
    window = find_content(text, statement)
    return Form(text, special=False, window=window, continues=bool(assistant))


def _restated(
    tokenizer: PreTrainedTokenizerBase, user: str, statement: str, arguments: Arguments | None
) -> Form:
    """A statement in both turns, learned as a whole sentence of the model's: its subject, too."""
    form = _chat(tokenizer, user.format(statement), statement, statement, arguments)
    start = form.window[0]
    return replace(form, earlier=find_content(form.text, statement, start), learned=start)


def _answered(
    tokenizer: PreTrainedTokenizerBase, query: str, statement: str, arguments: Arguments | None
) -> Form:
    """A query of the subject in the user's turn, the statement in the assistant's."""
    form = _chat(tokenizer, query, statement, statement, arguments)
    return replace(form, earlier=find_content(form.text, query, form.window[0]))
