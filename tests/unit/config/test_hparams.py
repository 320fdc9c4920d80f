"""Settings: types and values are checked, faults told together, presets and files merged."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from rose_easyedit.config.compare import differences, missing_settings
from rose_easyedit.config.hparams import AlignmentHyperParams, HierarchyHyperParams, RoSEHyperParams
from rose_easyedit.config.other_methods import RENAMED
from rose_easyedit.errors import RoSEError

LAYERS = {"layers": [7, 8, 9]}
PRESETS = ("rose", "rose-paper", "memit-merge", "memit", "alphaedit")


def test_settings_survive_a_round_trip() -> None:
    hparams = RoSEHyperParams.from_dict(
        {**LAYERS, "seed": 3, "hierarchy": {"fact_steps": 7}, "alignment": {"strength": 0.5}}
    )
    assert RoSEHyperParams.from_dict(hparams.as_dict()) == hparams
    assert hparams.hierarchy == HierarchyHyperParams(fact_steps=7)
    assert hparams.alignment == AlignmentHyperParams(strength=0.5)


def test_groups_may_be_given_as_mappings() -> None:
    hparams = RoSEHyperParams(layers=[1], hierarchy={"fact_steps": 3})  # type: ignore[arg-type]
    assert hparams.hierarchy == HierarchyHyperParams(fact_steps=3)


@pytest.mark.parametrize("layers", [(0, 1), range(2)])
def test_any_series_of_layers_is_a_list(layers: Any) -> None:
    hparams = RoSEHyperParams(layers=layers, contexts=("", "Fact: "))  # type: ignore[arg-type]
    assert (hparams.layers, hparams.contexts) == ([0, 1], ["", "Fact: "])
    assert RoSEHyperParams.from_dict(hparams.as_dict()) == hparams
    hparams.layers = layers
    hparams.check()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": None}, "layers is None; give a list of whole numbers"),
        ({"layers": [True]}, r"layers is \[True\]; give a list of whole numbers"),
        ({"layers": "01"}, "layers is '01'; give a list of whole numbers"),
        ({"contexts": "Fact: "}, "contexts is 'Fact: '; give a list of texts, or null"),
        ({"contexts": [1]}, r"contexts is \[1\]; give a list of texts, or null"),
        ({"z_layer": 9.5}, "z_layer is 9.5; give a whole number, or null"),
        ({"micro_batch": "64"}, "micro_batch is '64'; give a whole number of 1 or more$"),
        ({"micro_batch": 2.5}, "micro_batch is 2.5; give a whole number"),
        ({"sink_ratio": True}, "sink_ratio is True; give a number"),
        ({"fp16": "no"}, "fp16 is 'no'; give true or false"),
        ({"precision": None}, "precision is None; choose one of auto"),
        ({"hierarchy": 3}, "hierarchy is 3; give a group of settings"),
        ({"hierarchy": {"fact_step": 1}}, "fact_step is not .*did you mean hierarchy.fact_steps"),
        ({"hierarchy": {"fact_steps": "1"}}, "hierarchy.fact_steps is '1'; give a whole number"),
        (
            {"alignment": {"locality_budget": "1"}},
            "alignment.locality_budget is '1'; give a number above 0, or null",
        ),
    ],
)
def test_settings_built_by_hand_are_checked_for_their_types(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(RoSEError, match=f"(?s)cannot be used:.*{message}"):
        RoSEHyperParams(**{**LAYERS, **values})


def test_all_wrong_types_are_told_together() -> None:
    with pytest.raises(RoSEError) as caught:
        RoSEHyperParams(layers=[1], seed="1", max_length=None, z_layer="x")  # type: ignore[arg-type]
    assert all(f"{name} is " in str(caught.value) for name in ("seed", "max_length", "z_layer"))


def test_the_target_layer_is_the_last_edited_one_unless_named() -> None:
    assert RoSEHyperParams(layers=[3, 5]).target_layer == 5
    assert RoSEHyperParams(layers=[3, 5], z_layer=5).target_layer == 5
    assert RoSEHyperParams(layers=[3, 5], z_layer=9).target_layer == 9


def test_overrides_make_a_copy() -> None:
    hparams = RoSEHyperParams(layers=[3, 5], seed=4, alignment=AlignmentHyperParams(strength=0.1))
    other = hparams.with_overrides(layers=[6], alignment={"strength": 2.0})
    assert (other.layers, other.seed, other.alignment.strength) == ([6], 4, 2.0)
    assert (hparams.layers, hparams.alignment.strength) == ([3, 5], 0.1)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("layer", "layers"),
        ("micro_bach", "micro_batch"),
        ("z_layers", "z_layer"),
        ("hierarchy.fact_step", "hierarchy.fact_steps"),
        ("alignment.strenght", "alignment.strength"),
        ("alignment.protected_direction", "alignment.protected_directions"),
    ],
)
def test_a_typo_names_the_nearest_setting(key: str, nearest: str) -> None:
    group, _, name = key.rpartition(".")
    values = {group: {name: 1}} if group else {name: 1}
    with pytest.raises(RoSEError, match=f"{key} is not a setting; did you mean {nearest}\\?"):
        RoSEHyperParams.from_dict({**LAYERS, **values})


MEMIT = """alg_name: "MEMIT"
model_name: "./hugging_cache/gpt2-xl"
layers: [13, 14, 15, 16, 17]
clamp_norm_factor: 0.75
v_num_grad_steps: 20
v_lr: 5e-1
v_loss_layer: 47
mom2_dataset: "wikipedia"
rewrite_module_tmp: "transformer.h.{}.mlp.c_proj"
"""


def test_settings_of_easyedits_memit_are_told_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "gpt2-xl.yaml").write_text(MEMIT)
    with pytest.raises(RoSEError) as error:
        RoSEHyperParams.from_hparams(tmp_path / "gpt2-xl.yaml")
    message = str(error.value)
    assert "did you mean" not in message
    for part in (
        "settings of EasyEdit's MEMIT, in other units",
        "take model_name: ./hugging_cache/gpt2-xl and layers: [13, 14, 15, 16, 17]",
        'RoSEHyperParams.preset("memit"), --method memit',
    ):
        assert part in message
    (tmp_path / "gpt2-xl.yaml").write_text(MEMIT.replace('alg_name: "MEMIT"\n', ""))
    with pytest.raises(RoSEError, match=r"settings of ROME or MEMIT, as EasyEdit has them"):
        RoSEHyperParams.from_hparams(tmp_path / "gpt2-xl.yaml")


@pytest.mark.parametrize("method", ["LoRA", "WISE", "ULTRAEDIT"])
def test_settings_of_a_method_that_is_not_here_are_told_as_what_they_are(method: str) -> None:
    with pytest.raises(RoSEError) as error:
        RoSEHyperParams.from_dict({"alg_name": method, "lr": 1e-3, "rank": 8, "layers": [3]})
    assert f"lr, rank are settings of EasyEdit's {method}" in str(error.value)
    assert "take layers: [3] into a file of RoSE's" in str(error.value)
    assert "--method" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("v_lr", "hierarchy.fact_learning_rate"),
        ("clamp_norm_factor", "hierarchy.clamp_norm"),
        ("kl_factor", "hierarchy.kl_factor"),
        ("strength", "alignment.strength"),
    ],
)
def test_a_setting_under_another_name_or_outside_its_group_is_found(key: str, meant: str) -> None:
    with pytest.raises(RoSEError, match=f"{key} is not a setting; did you mean {meant}\\?"):
        RoSEHyperParams.from_dict({**LAYERS, key: 1})


def test_every_setting_that_another_method_is_pointed_to_is_there() -> None:
    for name in RENAMED.values():
        group, field = name.split(".")
        assert hasattr(getattr(RoSEHyperParams(layers=[1]), group), field)


def test_template_arguments_are_values_by_name() -> None:
    hparams = RoSEHyperParams.from_dict({**LAYERS, "template_arguments": {"enable_thinking": True}})
    assert hparams.template_arguments == {"enable_thinking": True}
    assert hparams.as_dict()["template_arguments"] == {"enable_thinking": True}
    assert RoSEHyperParams.from_dict(hparams.as_dict()) == hparams
    with pytest.raises(RoSEError, match=r"template_arguments is 3; give values by name"):
        RoSEHyperParams(layers=[1], template_arguments=3)  # type: ignore[arg-type]
    with pytest.raises(RoSEError, match=r"template_arguments is 3; give values by name"):
        RoSEHyperParams.from_dict({**LAYERS, "template_arguments": 3})


def test_template_arguments_are_one_setting_when_edits_are_compared() -> None:
    plain = RoSEHyperParams(layers=[1]).as_dict()
    told = {**plain, "template_arguments": {"enable_thinking": True}}
    assert differences(plain, plain) == [] and missing_settings(told) == []
    (difference,) = differences(plain, told)
    assert difference == "template_arguments is {} there and {'enable_thinking': True} here"


def test_all_typos_are_told_together() -> None:
    with pytest.raises(RoSEError) as caught:
        RoSEHyperParams.from_dict({"layer": [1], "sed": 1, "hierarchy": {"stepz": 1}})
    assert str(caught.value).count("is not a setting") == 3


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"seed": "three"}, "seed"),
        ({"layers": "seven"}, "layers"),
        ({"layers": ["seven"]}, "layers"),
        ({"layers": [7.5]}, "layers"),
        ({"fp16": "perhaps"}, "fp16"),
        ({"alignment": {"strength": "strong"}}, "alignment.strength"),
        ({"hierarchy": {"fact_steps": 2.5}}, "hierarchy.fact_steps"),
        ({"hierarchy": 3}, "hierarchy"),
        ({"seed": None}, "seed"),
    ],
)
def test_a_wrong_type_names_the_setting(values: dict[str, Any], key: str) -> None:
    with pytest.raises(RoSEError, match=f"(?s)cannot be used.*{key}"):
        RoSEHyperParams.from_dict({**LAYERS, **values})


VALUES = [
    ("alg_name", "ROME", "alg_name is 'ROME'; choose one of RoSE"),
    ("key_columns", "all", "key_columns is 'all'; choose one of per_query, merged"),
    ("precision", "half", "precision is 'half'; choose one of auto, bfloat16, weights"),
    ("hierarchy.integration", "sum", "hierarchical, joint, independent"),
    ("alignment.constraint", "none", "protected, identity, shrinkage, covariance, null_space"),
    ("batch_size", 0, "batch_size is 0; give a whole number of 1 or more"),
    ("max_length", -1, "number of 1 or more"),
    ("micro_batch", 0, "number of 1 or more"),
    ("n_contexts", 0, "number from 1 to 8"),
    ("chat_contexts", -1, "number from 0 to 4"),
    ("query_formats", -1, "number from 0 to 6"),
    ("seed", -1, "number of 0 or more"),
    ("n_contexts", 9, "n_contexts is 9; give a whole number from 1 to 8"),
    ("chat_contexts", 5, "chat_contexts is 5; give a whole number from 0 to 4"),
    ("answered_queries", 3, "answered_queries is 3; give a whole number from 0 to 2"),
    ("query_formats", 7, "query_formats is 7; give a whole number from 0 to 6"),
    ("sink_ratio", 1.0, "a number above 1"),
    ("hierarchy.fact_steps", 0, "hierarchy.fact_steps is 0; give a whole number of 1 or more"),
    ("hierarchy.subject_steps", 0, "number of 1 or more"),
    ("hierarchy.fact_learning_rate", 0.0, "number above 0"),
    ("hierarchy.subject_learning_rate", -1.0, "number above 0"),
    ("hierarchy.clamp_norm", 0.0, "number above 0"),
    ("hierarchy.context_batches", 0, "number of 1 or more"),
    ("hierarchy.loss_threshold", -0.1, "number of 0 or more"),
    ("hierarchy.kl_factor", -1.0, "number of 0 or more"),
    ("hierarchy.weight_decay", -1.0, "number of 0 or more"),
    ("hierarchy.smoothing_radius", -1.0, "number of 0 or more"),
    ("alignment.strength", 0.0, "number above 0"),
    ("alignment.covariance_weight", 0.0, "number above 0"),
    ("alignment.statistics_tokens", 0, "number of 1 or more"),
    ("alignment.protected_directions", -1, "number of 0 or more"),
    ("alignment.subject_weight", -1.0, "number of 0 or more"),
    ("alignment.null_space_threshold", -1.0, "number of 0 or more"),
    ("alignment.shrinkage", 1.5, "a number from 0 to 1"),
    ("layers", [], "layers is empty; name the layers to edit"),
    ("layers", [8, 7], r"layers is \[8, 7\]; list different layers, 0 or more, in order"),
    ("layers", [7, 7], "list different layers"),
    ("layers", [-1, 3], "0 or more"),
    ("z_layer", 8, "z_layer is 8, before the last edited layer 9"),
    ("model_parallel", True, "model_parallel is true"),
    ("contexts", [], "contexts is an empty list"),
]


def nested(key: str, value: Any) -> dict[str, Any]:
    group, _, name = key.rpartition(".")
    return {group: {name: value}} if group else {name: value}


@pytest.mark.parametrize(("key", "value", "message"), VALUES)
def test_a_value_out_of_range(key: str, value: Any, message: str) -> None:
    with pytest.raises(RoSEError, match=f"(?s){message}"):
        RoSEHyperParams.from_dict({**LAYERS, **nested(key, value)})


@pytest.mark.parametrize(
    "key",
    [
        f"{prefix}{f.name}"
        for prefix, schema in (
            ("", RoSEHyperParams),
            ("hierarchy.", HierarchyHyperParams),
            ("alignment.", AlignmentHyperParams),
        )
        for f in fields(schema)
        if f.type in ("int", "float")
    ],
)
def test_what_is_no_number_is_refused(key: str) -> None:
    with pytest.raises(RoSEError, match=key.rpartition(".")[2]):
        RoSEHyperParams.from_dict({**LAYERS, **nested(key, float("nan"))})


@pytest.mark.parametrize("key", ["sink_ratio", "alignment.strength", "hierarchy.weight_decay"])
def test_a_number_without_bound_is_refused(key: str) -> None:
    with pytest.raises(RoSEError, match=f"{key} is inf; give a number"):
        RoSEHyperParams.from_dict({**LAYERS, **nested(key, float("inf"))})


def test_values_of_another_type_are_told_together_with_what_the_settings_are() -> None:
    values = {
        "layers": "foo",
        "seed": "abc",
        "z_layer": [1],
        "precision": "auto",
        "alignment": {"strength": "strong", "locality_budget": {}, "shrinkage": 0.1},
    }
    with pytest.raises(RoSEError) as caught:
        RoSEHyperParams.from_dict(values)
    assert caught.value.faults == (
        "seed is 'abc'; give a whole number of 0 or more",
        "z_layer is [1]; give a whole number, or null",
        "alignment.strength is 'strong'; give a number above 0",
        "alignment.locality_budget is {}; give a number above 0, or null",
        "layers is 'foo'; give a list of whole numbers, or auto",
    )


def test_values_of_another_type_and_out_of_range_are_told_together() -> None:
    values = {"layers": [1], "seed": "abc", "n_contexts": 9, "alignment": {"strength": -1}}
    with pytest.raises(RoSEError) as caught:
        RoSEHyperParams.from_dict(values)
    assert caught.value.faults == (
        "seed is 'abc'; give a whole number of 0 or more",
        "n_contexts is 9; give a whole number from 1 to 8",
        "alignment.strength is -1.0; give a number above 0",
    )


def test_a_preset_is_told_by_its_name() -> None:
    with pytest.raises(RoSEError, match=r"'mmit'; .*memit-merge, .*did you mean memit\?"):
        RoSEHyperParams.preset("mmit")


def test_all_faulty_values_are_told_together() -> None:
    with pytest.raises(RoSEError) as caught:
        RoSEHyperParams(
            layers=[],
            seed=-1,
            key_columns="x",
            hierarchy=HierarchyHyperParams(fact_steps=0),
            alignment=AlignmentHyperParams(strength=-1),
        )
    message = str(caught.value)
    for fault in ("layers is", "seed is", "key_columns is", "fact_steps is", "strength is"):
        assert fault in message


def test_a_file_is_read_by_path_with_and_without_its_ending(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("layers: [1, 2]\nalignment:\n  strength: 0.7\n")
    for name in (path, str(path), str(path).removesuffix(".yaml")):
        hparams = RoSEHyperParams.from_hparams(name)
        assert (hparams.layers, hparams.alignment.strength) == ([1, 2], 0.7)
    assert RoSEHyperParams.preset("memit", base=path).hierarchy.integration == "independent"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers: [1", "is not a readable YAML file"),
        ("- 1\n- 2\n", "holds no settings"),
        ("", "cannot be used|holds no settings"),
        ("layers: [1]\nlayer: 2\n", "did you mean layers"),
        ("layers: [1]\nhierarchy:\n", "hierarchy"),
    ],
)
def test_a_faulty_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RoSEError, match=message):
        RoSEHyperParams.from_hparams(path)


def test_a_file_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(RoSEError, match="no settings file 'smollm3'.*gpt2-xl.*smollm2-135m"):
        RoSEHyperParams.from_hparams("smollm3")
    with pytest.raises(RoSEError, match="no preset file 'rome'.*alphaedit.*memit"):
        RoSEHyperParams.preset("rome")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_keeps_what_is_the_models(name: str) -> None:
    plain = RoSEHyperParams.from_hparams("smollm2-135m").with_overrides(seed=5, micro_batch=3)
    preset = plain.with_preset(name)
    assert preset.layers == plain.layers
    assert (preset.seed, preset.micro_batch) == (5, 3)
    assert preset.alignment.covariance_weight == plain.alignment.covariance_weight
    assert plain.with_preset(name.replace("-", "_")) == preset


def test_presets_are_the_methods_that_they_name() -> None:
    def traits(name: str) -> tuple[Any, ...]:
        hparams = RoSEHyperParams.preset(name)
        return (
            hparams.hierarchy.integration,
            hparams.hierarchy.smoothing_radius > 0,
            hparams.alignment.constraint,
            hparams.alignment.protected(1536) > 0,
            hparams.key_columns,
            hparams.query_formats > 0,
        )

    assert traits("rose") == ("hierarchical", True, "protected", True, "per_query", True)
    assert traits("rose-paper")[:4] == ("hierarchical", False, "identity", False)
    assert traits("memit-merge")[:3] == ("joint", False, "covariance")
    assert traits("memit")[:3] == ("independent", False, "covariance")
    assert traits("alphaedit")[:3] == ("independent", False, "null_space")
    for name in ("memit", "memit-merge", "alphaedit", "rose-paper"):
        assert traits(name)[4:] == ("merged", False)


@pytest.mark.parametrize("base", ["laboratory", "tiny-random", "gemma-3-270m", "smollm2-135m"])
def test_rose_is_what_the_model_s_own_settings_say(base: str) -> None:
    assert RoSEHyperParams.preset("rose", base) == RoSEHyperParams.from_hparams(base)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "rose"])
def test_a_baseline_s_preset_undoes_another(name: str) -> None:
    assert RoSEHyperParams.preset("memit").with_preset(name) == RoSEHyperParams.preset(name)


def test_a_model_given_by_hand_is_recorded_by_its_name() -> None:
    class Model:
        name_or_path = "some/model"

        def __deepcopy__(self, _memo: object) -> None:
            raise AssertionError("models are not copied")

    settings = RoSEHyperParams(layers=[1], model_name=(Model(), object()))  # type: ignore[arg-type]
    assert settings.as_dict()["model_name"] == "some/model"


def test_a_setting_keeps_working_under_its_former_name_and_says_the_new_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = RoSEHyperParams.from_dict({"layers": [1], "hierarchy": {"context_turns": 3}})
    assert found.hierarchy.context_batches == 3
    assert "hierarchy.context_turns is hierarchy.context_batches now" in caplog.text
    now = RoSEHyperParams.from_dict({"layers": [1], "hierarchy": {"context_batches": 3}})
    former = now.as_dict()
    former["hierarchy"]["context_turns"] = former["hierarchy"].pop("context_batches")
    assert not differences(former, now.as_dict()) and not missing_settings(former)
    both = {"context_turns": 3, "context_batches": 3}
    with pytest.raises(RoSEError, match="context_turns is not a setting"):
        RoSEHyperParams.from_dict({"layers": [1], "hierarchy": both})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "protected"),
        ({"protected_directions": 0}, "identity"),
        ({"protected_share": 0}, "identity"),
        ({"protected_directions": 9}, "protected"),
    ],
)
def test_the_constraint_that_had_one_name_for_two_things_is_told_apart(
    given: dict[str, Any], name: str
) -> None:
    alignment = {"constraint": "isotropic", **given}
    found = RoSEHyperParams.from_dict({"layers": [1], "alignment": alignment}).alignment
    assert found.constraint == name


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("strenth", "did you mean alignment.strength?"),
        ("kl_facto", "did you mean hierarchy.kl_factor?"),
        ("layer", "did you mean layers?"),
        ("data", "there are alg_name, model_name,"),  # nothing is near
    ],
)
def test_the_nearest_name_is_sought_in_all_groups(key: str, advice: str) -> None:
    with pytest.raises(RoSEError, match=f"{key} is not a setting; {re.escape(advice)}"):
        RoSEHyperParams.from_dict({key: 1})
