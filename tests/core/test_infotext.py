"""What is said in the words of the A1111 web UI, against a reader of its own and against texts of other programs."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorakit_cli.core.infotext import parse_infotext, write_infotext
from lorakit_cli.core.schedulers import SCHEDULERS, from_web_ui, web_ui_name
from tests.infotext import read_infotext

PARAMETERS = {"Steps": 20, "Sampler": "Euler a", "CFG scale": 7.0}
VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters=',:"\\'), min_size=1).map(str.strip)


@given(VALUES.filter(bool), VALUES.filter(bool))
def test_any_value_is_read_back_by_us_and_by_others(one, other):
    text = write_infotext("a heart", "", PARAMETERS | {"Model": one, "Lora hashes": other})
    wanted = {"Steps": "20", "Sampler": "Euler a", "CFG scale": "7.0", "Model": one, "Lora hashes": other}
    assert read_infotext(text) == ("a heart", "", wanted)
    assert parse_infotext(text).parameters == wanted


def test_lines_of_prompts_are_kept():
    text = write_infotext("a heart,\nred: yes", "blue,\ngreen", PARAMETERS | {"Left out": None})
    assert text.splitlines()[-1] == "Steps: 20, Sampler: Euler a, CFG scale: 7.0"
    assert parse_infotext(text).prompt == read_infotext(text)[0] == "a heart,\nred: yes"
    assert parse_infotext(text).negative == read_infotext(text)[1] == "blue,\ngreen"


def test_a_text_of_the_web_ui_itself():
    said = parse_infotext(
        "girl with an artist's beret, ((eyeshadow)), (coquettish), <lora:add_detail:0.6>\n"
        "Negative prompt: ugly, fat, [blurry]\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, "
        'Model hash: 45dee52b, Model: v1-5, Lora hashes: "add_detail: 7c6bad76eb54, b: 1", Version: v1.10.1'
    )
    assert said.negative == "ugly, fat, [blurry]"
    assert said.parameters["Lora hashes"] == "add_detail: 7c6bad76eb54, b: 1"
    assert (said.parameters["Sampler"], said.parameters["Size"], len(said.parameters)) == ("DPM++ 2M", "512x768", 10)
    assert parse_infotext("just words: here, and there").parameters == {}
    assert parse_infotext("just words").prompt == "just words"


@pytest.mark.parametrize("filler", ["a", "a:", 'a:"', "a ", "\\", '"', "a: b,", 'a: "\\", '])
def test_hostile_texts_take_no_time(filler):
    begin = time.monotonic()
    parse_infotext(filler * (900_000 // len(filler)))
    assert time.monotonic() - begin < 5
    with pytest.raises(ValueError, match="longer than"):
        parse_infotext("a" * 2_000_000)


def test_samplers_have_the_names_of_the_web_ui():
    karras = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "use_karras_sigmas": True}
    assert web_ui_name("DPMSolverMultistepScheduler", karras) == "DPM++ 2M SDE Karras"
    assert web_ui_name("EulerDiscreteScheduler", {"use_karras_sigmas": False}) == "Euler"
    assert web_ui_name("OddScheduler", {}) == "OddScheduler"
    assert web_ui_name("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}) == "Euler"
    named = [scheduler for scheduler in SCHEDULERS if scheduler.web_ui]
    first = {scheduler.web_ui: scheduler for scheduler in reversed(named)}
    for scheduler in named:
        for schedule, option in (
            ("", None),
            ("Karras", "use_karras_sigmas"),
            ("Exponential", "use_exponential_sigmas"),
        ):
            options = {**scheduler.options, **({option: True} if option else {})}
            name = web_ui_name(scheduler.class_name, options)
            assert name == f"{scheduler.web_ui} {schedule}".strip()
            found = from_web_ui(name)
            assert found == (first[scheduler.web_ui].class_name, options)
            assert from_web_ui(scheduler.web_ui, schedule) == found
    assert from_web_ui("FlowMatchEulerDiscreteScheduler") == ("FlowMatchEulerDiscreteScheduler", {})
    assert from_web_ui("DPMSolverMultistepScheduler") == ("DPMSolverMultistepScheduler", {})
    assert from_web_ui("DPM++ 2M", "Align Your Steps") is None
    assert from_web_ui("Restart") is None
