"""The trapezoidal profile, the response models and the noise sequences: plain values in, plain values out."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_server.sim.models import MODELS, from_lmfit, motors_needed, response
from device_server.sim.noise import Noise, NoiseSequence, hashed_normal, noise_named, seed_for
from device_server.sim.profile import Trapezoid

places = st.floats(-1e3, 1e3)
rates = st.floats(1e-3, 1e3)


@given(places, places, rates, rates)
def test_a_move_begins_at_its_start_and_ends_exactly_at_its_target(start, target, velocity, acceleration):
    move = Trapezoid(start, target, velocity, acceleration)
    assert move.position(0) == start or start == target
    assert move.position(move.duration) == target


@given(places, places, rates, rates, st.lists(st.floats(0, 1), min_size=2))
def test_a_move_never_turns_back_nor_leaves_its_way(start, target, velocity, acceleration, fractions):
    move = Trapezoid(start, target, velocity, acceleration)
    places = [move.position(f * move.duration) for f in sorted(fractions)]
    ordered = places if target >= start else places[::-1]
    tolerance = 1e-9 * max(1, abs(start), abs(target))
    assert all(b - a >= -tolerance for a, b in pairwise(ordered))
    assert all(min(start, target) - tolerance <= p <= max(start, target) + tolerance for p in places)


@given(places, places, rates, rates, st.floats(0, 1), st.floats(0, 1))
def test_a_move_keeps_to_its_velocity(start, target, velocity, acceleration, one, other):
    move = Trapezoid(start, target, velocity, acceleration)
    t1, t2 = sorted((one * move.duration, other * move.duration))
    way = abs(move.position(t2) - move.position(t1))
    assert way <= velocity * (t2 - t1) * (1 + 1e-6) + 1e-9 * max(1, abs(start), abs(target))


def test_long_and_short_moves_take_the_time_that_the_rates_say():
    assert Trapezoid(0, 10, 2, 4).duration == pytest.approx(10 / 2 + 2 / 4)
    assert Trapezoid(0, 0.25, 2, 4).duration == pytest.approx(2 * math.sqrt(0.25 / 4))
    assert Trapezoid(0, 10, 2, 0).duration == pytest.approx(5)
    assert Trapezoid(3, 3, 2, 4).duration == 0


def test_a_velocity_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="must be positive"):
        Trapezoid(0, 1, 0, 1)


@pytest.mark.parametrize("model", ["gaussian", "lorentzian", "voigt"])
def test_a_peak_has_its_height_at_its_center_and_is_symmetric(model):
    value = response(model, amplitude=100, center=0.37, sigma=0.4, background=5)
    assert value([0.37]) == pytest.approx(105)
    assert value([0.37 + 0.2]) == pytest.approx(value([0.37 - 0.2]))
    assert value([100]) == pytest.approx(5, abs=0.1)


def test_half_width_of_the_peaks():
    assert response("gaussian", sigma=1)([math.sqrt(2 * math.log(2))]) == pytest.approx(0.5)
    assert response("lorentzian", sigma=1)([1]) == pytest.approx(0.5)


def test_edge_rises_or_falls():
    rising, falling = response("edge", sigma=0.1), response("edge", sigma=-0.1)
    assert [rising([x]) for x in (-1, 0, 1)] == pytest.approx([0, 0.5, 1])
    assert [falling([x]) for x in (-1, 0, 1)] == pytest.approx([1, 0.5, 0])


def test_gaussian2d_and_polynomial_and_constant():
    spot = response("gaussian2d", amplitude=10, center=[1, 2], sigma=[0.5, 1])
    assert spot([1, 2]) == 10
    assert spot([1.5, 2]) == pytest.approx(spot([1, 3]))
    assert response("polynomial", coefficients=[1, 2, 3])([2]) == 1 + 4 + 12
    assert response("constant", amplitude=3, background=1)([]) == 4


def test_number_of_motors_of_every_model():
    assert {name: motors_needed(name) for name in MODELS} == {
        "constant": 0, "polynomial": 1, "gaussian": 1, "lorentzian": 1, "voigt": 1, "edge": 1, "gaussian2d": 2,
    }  # fmt: skip


def test_bad_models_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="choose one of constant, polynomial"):
        response("sinus")
    with pytest.raises(ValueError, match="sigma of the gaussian model must be positive"):
        response("gaussian", sigma=0)
    with pytest.raises(ValueError, match="one number"):
        response("gaussian", center=[1, 2])
    with pytest.raises(ValueError, match="unknown noise 'pink'"):
        noise_named("pink")


def test_sim_init_gives_the_height_that_the_area_of_lmfit_means():
    arguments = from_lmfit(
        {"model": "GaussianModel", "params": {"amplitude": 2, "sigma": 0.4, "ref_motor": "samx"}}
    )
    assert arguments["amplitude"] == pytest.approx(2 / (0.4 * math.sqrt(2 * math.pi)))
    assert (arguments["model"], arguments["motors"]) == ("gaussian", "samx")
    with pytest.raises(ValueError, match="unknown model 'Foo'"):
        from_lmfit({"model": "Foo"})


@pytest.mark.parametrize("kind", list(Noise))
def test_a_restarted_sequence_repeats_itself(kind):
    noise = NoiseSequence(kind, 2.0, seed=1)
    first = [noise.around(100.0) for _ in range(20)]
    noise.restart()
    assert [noise.around(100.0) for _ in range(20)] == first
    assert (len(set(first)) == 1) is (kind is Noise.NONE)


def test_noise_has_the_spread_it_is_given():
    def spread(kind, level, expected):
        noise = NoiseSequence(kind, level, seed=3)
        values = [noise.around(expected) for _ in range(4000)]
        mean = sum(values) / len(values)
        return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))

    assert spread(Noise.GAUSSIAN, 2.0, 50.0) == pytest.approx((50, 2), rel=0.05)
    assert spread(Noise.UNIFORM, 2.0, 50.0) == pytest.approx((50, 2 / math.sqrt(3)), rel=0.05)
    assert spread(Noise.POISSON, 0.0, 400.0) == pytest.approx((400, 20), rel=0.05)
    assert NoiseSequence(Noise.POISSON, 1, 0).around(-3.0) == 0
    assert NoiseSequence(Noise.POISSON, 1, 0).around(1e20) == pytest.approx(1e20, rel=1e-6)


def test_a_seed_comes_from_the_name_unless_it_is_given():
    assert seed_for("bpm4i") == seed_for("bpm4i") != seed_for("diode")
    assert seed_for("bpm4i", 7) == 7


def test_hashed_noise_is_normal_and_depends_on_its_arguments_alone():
    values = [hashed_normal(5, n) for n in range(4000)]
    assert sum(values) / 4000 == pytest.approx(0, abs=0.06)
    assert sum(v * v for v in values) / 4000 == pytest.approx(1, abs=0.08)
    assert hashed_normal(5, 17) == values[17] != hashed_normal(6, 17)
