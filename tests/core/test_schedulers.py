"""Names of schedulers, held against the classes that diffusers has."""

import diffusers
import pytest

from lorakit_cli.core.schedulers import SCHEDULERS, find_sampler, is_flow, parse_scheduler_options
from lorakit_cli.errors import OptionError

KARRAS = {"use_karras_sigmas": True}


@pytest.mark.parametrize(
    ("name", "class_name", "options"),
    [
        ("euler", "EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", "EulerDiscreteScheduler", {}),
        ("Euler a", "EulerAncestralDiscreteScheduler", {}),
        ("euler_ancestral", "EulerAncestralDiscreteScheduler", {}),
        ("DPM++ 2M Karras", "DPMSolverMultistepScheduler", KARRAS),
        ("dpmpp_2m_karras", "DPMSolverMultistepScheduler", KARRAS),
        ("DPMSolverMultistep", "DPMSolverMultistepScheduler", {}),
        ("DPM++ 2M SDE Karras", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", **KARRAS}),
        ("DPM++ SDE", "DPMSolverSinglestepScheduler", {}),
        ("DPM2 a Karras", "KDPM2AncestralDiscreteScheduler", KARRAS),
        ("uni_pc", "UniPCMultistepScheduler", {}),
        ("Euler SGM Uniform", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ],
)
def test_names(name, class_name, options):
    assert find_sampler(name, flow=False) == (class_name, options)


def test_a_name_means_another_class_where_flow_is_predicted():
    assert find_sampler("euler", flow=True).class_name == "FlowMatchEulerDiscreteScheduler"
    assert find_sampler("FlowMatchEulerDiscreteScheduler", flow=True).options == {}
    assert find_sampler("dpmpp_2m", flow=True).options == {
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
    }


def test_every_class_is_one_of_diffusers():
    assert all(hasattr(diffusers, scheduler.class_name) for scheduler in SCHEDULERS)


def test_what_is_wrong_with_a_name():
    with pytest.raises(
        OptionError, match=r"no scheduler 'eulr'; did you mean euler .* this base takes euler, euler_a, h"
    ):
        find_sampler("eulr", flow=False)
    with pytest.raises(
        OptionError, match="this base predicts flow, and that one is made for noise; this base takes euler"
    ):
        find_sampler("DDIM", flow=True)
    with pytest.raises(OptionError, match="this base predicts noise, and that one is made for flow"):
        find_sampler("FlowMatchEulerDiscreteScheduler", flow=False)


def test_options_are_typed():
    texts = ["a=true", "b=False", "c=2", "d=sde-dpmsolver++", 'e="2"', "f=[1, 2]", "g=x=y", "h="]
    assert parse_scheduler_options(texts) == {
        "a": True, "b": False, "c": 2, "d": "sde-dpmsolver++", "e": "2", "f": [1, 2], "g": "x=y", "h": "",
    }  # fmt: skip
    for bad in (["a"], ["=1"], ["a b=1"]):
        with pytest.raises(OptionError, match="is not NAME=VALUE"):
            parse_scheduler_options(bad)
    with pytest.raises(OptionError, match="given twice"):
        parse_scheduler_options(["a=1", "a=2"])


def test_what_predicts_flow():
    assert is_flow({"_class_name": "FlowMatchEulerDiscreteScheduler"})
    assert is_flow({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True})
    assert not is_flow({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"})
