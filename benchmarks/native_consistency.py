"""Which relations can the unedited model itself answer in every form?

An edit can only be seen in a question if the model answers that question at all. For true facts
of each relation of the bundled set this measures how many the model knows as a statement, and
how often it then also answers the paraphrases, questions and instructions.

    python benchmarks/native_consistency.py --out native_consistency.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from rose_easyedit.evaluation.facts import CORE, FORMS, SETS, Fact, make_fact
from rose_easyedit.evaluation.metrics import contains_target
from rose_easyedit.forward.generation import generate_greedy
from rose_easyedit.models.loading import load_model

TRUE_FACTS = {"core": "true_facts.json", "wide": "true_facts_wide.json"}


def load_true_facts(relations: Sequence[str] | None = None, name: str = CORE) -> list[Fact]:
    """True facts in the wordings of a bundled set; the truth stands as both answers."""
    path = Path(__file__).with_name(TRUE_FACTS[name])
    data = json.loads(path.read_text(encoding="utf-8"))
    return [
        make_fact(
            relation,
            subject,
            target_new=answers[0],
            ground_truth=answers[0],
            target_aliases=answers[1:],
            name=name,
        )
        for relation, subjects in data.items()
        if relations is None or relation in relations
        for subject, answers in subjects.items()
    ]


def measure(model: Any, tokenizer: Any, facts: Sequence[Fact], **asking: Any) -> dict[str, Any]:
    """Consistency of the facts of one relation, per form and per wording.

    Returns:
        `facts` and `known` (answered as a statement) as counts; `consistency` per form and
        `wordings` per query template: the fraction answered among the known facts.
    """
    queries = [(fact, query) for fact in facts for query in fact.queries]
    answered: dict[tuple[Fact, str], bool] = {}
    for chat in (False, True):
        asked = [(fact, query) for fact, query in queries if query.chat == chat]
        texts = [query.text for _, query in asked]
        for (fact, query), answer in zip(
            asked, generate_greedy(model, tokenizer, texts, chat=chat, **asking), strict=True
        ):
            hit = contains_target(answer, fact.target_new, fact.target_aliases)
            answered[fact, query.text] = hit
    known = [fact for fact in facts if answered[fact, fact.prompt]]
    wordings = {
        (query.form, query.text.replace(facts[0].subject, "{}")): fmean(
            answered[fact, fact.queries[i].text] for fact in known
        )
        for i, query in enumerate(facts[0].queries)
        if known
    }
    return {
        "facts": len(facts),
        "known": len(known),
        "consistency": {
            form: fmean(value for (of, _), value in wordings.items() if of == form)
            for form in FORMS[1:]
            if known
        },
        "wordings": {text: round(value, 3) for (_, text), value in wordings.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="name, folder or hub name")
    parser.add_argument("--set", choices=list(SETS), default=CORE, help="the bundled set")
    parser.add_argument("--relations", nargs="*", help="only these (default: all)")
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    args = parser.parse_args()
    model, tokenizer = load_model(args.model)
    facts = load_true_facts(args.relations, args.set)
    relations = list(dict.fromkeys(fact.relation for fact in facts))
    results = {}
    for relation in tqdm(relations, unit="relation", disable=None):
        chosen = [fact for fact in facts if fact.relation == relation]
        result = measure(
            model, tokenizer, chosen, batch_size=64, max_new_tokens=args.max_new_tokens
        )
        results[relation] = result
        forms = "  ".join(f"{form} {value:.2f}" for form, value in result["consistency"].items())
        tqdm.write(f"{relation:18} known {result['known']:2}/{result['facts']}  {forms}")
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
