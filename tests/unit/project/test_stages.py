"""benchmarks/stages.py: what is booked to which stage, counted by hand, on a tiny model."""

from __future__ import annotations

import json
import mmap
from itertools import groupby

import pytest
import torch
from made_up_facts import PER_SUBJECT, made_up_requests
from stage_flops import flop_counter, least_flops, matmul_peak
from stage_meter import Meter, resident
from stage_watch import FACTS, STAGES, SUBJECTS, Seen, watched
from staged_edit import Job, measure_extending, measure_flops, measure_stages
from stages import extend_table, flops_table, slope, stage_table
from tiny_models import build_model
from torch.nn.attention import SDPBackend, sdpa_kernel

from rose_easyedit.config.hparams import AlignmentHyperParams
from rose_easyedit.method.stage1.pieces import Group
from rose_easyedit.method.stage1.setting import Level
from rose_easyedit.method.stage2 import closed_form
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.text.locate_subject import TokenQuery

MIB = 2**20


@pytest.fixture
def job():
    return Job(
        5,
        model="tiny-random",
        hparams="tiny-random",
        fact_steps=1,
        subject_steps=2,
        threads=torch.get_num_threads(),
    )


class FakeCounter:
    total = 0

    def get_total_flops(self):
        return self.total


def test_the_innermost_stage_counts():
    counter = FakeCounter()
    meter = Meter(counter)
    counter.total += 100  # before any stage
    with meter.stage("outer"):
        counter.total += 1
        with meter.stage("inner"):
            counter.total += 10
        counter.total += 2
    counter.total += 100
    with pytest.raises(ZeroDivisionError), meter.stage("inner"):
        counter.total += 20
        raise ZeroDivisionError
    with meter.stage("outer"):
        counter.total += 4
    assert {name: (c.calls, c.flops) for name, c in meter.costs.items()} == {
        "outer": (2, 7),
        "inner": (2, 30),
    }


def test_a_function_is_metered_by_what_it_is_given():
    meter = Meter()
    double = meter.metered(lambda number: 2 * number, lambda number: f"of {number}")
    assert double(3) == 6
    assert list(meter.costs) == ["of 3"]


@pytest.mark.skipif(not resident("VmHWM"), reason="only Linux tells the peak of a process")
def test_the_peak_is_that_of_the_stage_alone():
    meter = Meter()
    before = resident()
    with meter.stage("outer"):
        with meter.stage("large"):
            # pages of its own, not those that the process has freed and kept
            with mmap.mmap(-1, 200 * MIB) as pages:
                pages.write(b"x" * (200 * MIB))
        with meter.stage("small"):
            pass
    assert meter.costs["large"].peak > before + 150
    assert meter.costs["small"].peak < before + 100
    assert meter.costs["outer"].peak < before + 100


def test_slopes():
    assert slope([10, 100, 1000], [0.1, 10, 1000]) == pytest.approx(2)
    assert slope([10, 100, 1000], [1e-5, 2, 2]) == pytest.approx(0)  # too short to be measured
    assert slope([10, 100], [1e-5, 2]) is None
    assert slope([10], [2]) is None
    assert slope([], []) is None


def test_made_up_facts_are_distinct_and_the_same_at_every_call():
    requests = made_up_requests(3000)
    assert len({request.place for request in requests}) == 3000
    sizes = [len(list(group)) for _, group in groupby(r.subject for r in requests)]
    assert set(sizes) == {PER_SUBJECT}
    assert len({request.subject for request in requests}) == len(sizes)
    assert made_up_requests(7) == requests[:7]


def test_the_least_by_hand():
    editable = read_architecture(build_model("llama-tied"))
    # one target token behind the subject, then two of them; the essence has three tokens
    group = Group(
        "s",
        ((TokenQuery((1, 2, 3), 1, 1), TokenQuery((1, 2, 3, 4, 5), 1, 2)),),
        kept=(TokenQuery((1, 2, 3), 0, 0),),
    )
    d, d_ff, kv, vocabulary = 32, 64, 16, 512
    layer = 2 * d * d + 2 * d * kv + 3 * d * d_ff
    body, head = 2 * layer, vocabulary * d
    # the first turn has the first query (one token, one place) and the essence (three, one)
    first, second = (1 + 3) * body + 2 * head, 3 * body + 2 * head
    expected = 4 * (2 * first + 1 * second)
    assert least_flops(editable, 1, [group], Level(3, 0.1), context_batches=2) == expected
    assert least_flops(editable, 1, [group], Level(1, 0.1), context_batches=2) == 4 * (
        first + second
    )


def test_what_torch_does_not_count_is_counted():
    def counted(run):
        with flop_counter() as counter:
            run()
        return counter.get_total_flops()

    def attend():
        query = torch.ones(2, 3, 5, 8, requires_grad=True)
        torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()

    assert counted(lambda: torch.ones(3, 5) @ torch.ones(5, 7)) == 2 * 3 * 5 * 7
    assert counted(lambda: torch.linalg.solve(torch.eye(30), torch.ones(30, 5))) == 27000
    with sdpa_kernel(SDPBackend.MATH):
        products = counted(attend)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        fused = counted(attend)
    # two products forward and four back, of which the fused kernel repeats one
    assert products == 12 * 2 * 3 * 5 * 5 * 8
    assert fused == 14 * 2 * 3 * 5 * 5 * 8


def test_the_peak_of_products_is_a_speed():
    assert matmul_peak(torch.float32, size=64, seconds=0.0) > 0


@pytest.mark.parametrize("n_columns, solver", [(6, "rows"), (20, "entries")])
def test_the_solver_that_was_used(tmp_path, n_columns, solver):
    seen = Seen()
    keys, residuals = torch.randn(n_columns, 8), torch.randn(n_columns, 4)
    with watched(Meter(), seen, tmp_path):
        closed_form.align(keys, residuals, None, AlignmentHyperParams())
    assert seen.solvers == {solver}


def test_the_stages_of_an_edit(job):
    record = json.loads(json.dumps(measure_stages(job)))
    assert set(record["stages"]) == set(STAGES)
    assert (record["facts"], record["subjects"]) == (5, 2)
    assert (record["fact_steps"], record["subject_steps"]) == (1, 2)
    assert record["columns"] > record["preserved"] > 0
    assert record["solver"] == ["rows"]
    shown = stage_table([record, {**record, "facts": 50}])
    assert all(name in shown for name in STAGES)


def test_done_is_at_least_what_is_needed(job):
    record = measure_flops(job)
    for name in (FACTS, SUBJECTS):
        found = record["stages"][name]
        assert 0.2 < found["least_gflop"] / found["gflop"] <= 1
    assert record["stages"]["solve"]["dtype"] == "float64"
    assert "least/done" in flops_table(record)


def test_only_new_facts_are_optimised(job):
    record = measure_extending(job, n_more=4)
    optimised = {name: found["optimised"] for name, found in record["stage1"].items()}
    # the second subject had one fact of its four: its value is found anew, with all of them
    assert optimised == {"first": 5, "again": 0, "extended": 5, "alone": 4}
    assert record["stage1"]["again"]["cpu"] == 0
    assert "4 more added" in extend_table(record)
