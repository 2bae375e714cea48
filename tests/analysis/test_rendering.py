import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import pgjax
from pgjax.environments.drawings import GYMNAX, draw_image
from tests.cases import counting, recall, remembering

DRAWN = {
    "maze": pgjax.maze,
    "partial maze": pgjax.partial_maze,
    "T-maze": lambda: pgjax.t_maze(3, 9),
    "navigation": lambda: pgjax.navigation(horizon=9),
    "recommendation": lambda: pgjax.recommendation(horizon=9),
    "slates": lambda: pgjax.recommendation(slate=2, horizon=9),
    "cooling": lambda: pgjax.cooling(horizon=9),
    "Catch-bsuite": lambda: pgjax.from_gymnax("Catch-bsuite", max_steps_in_episode=9),
    "counting": counting,
    **{name: lambda name=name: pgjax.from_gymnax(name, max_steps_in_episode=9) for name in GYMNAX},
}


@pytest.mark.parametrize("name", DRAWN)
def test_an_episode_of_anything_can_be_drawn(name, tmp_path):
    environment = DRAWN[name]()
    with jax.numpy_rank_promotion("allow"):  # gymnax promotes
        episode = pgjax.play(environment, pgjax.random_policy(environment), jax.random.key(0), ())
    pgjax.analysis.save_frame(environment, episode, tmp_path / "first.png", 0)
    pgjax.analysis.save_frame(environment, episode, tmp_path / "last.png")
    pictures = []
    for file in ("first.png", "last.png"):
        with Image.open(tmp_path / file) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    first, last = pictures
    for picture in (first, last):
        assert picture.shape == (576, 720, 3)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
    assert (first != last).any()


def test_an_episode_is_what_a_rollout_makes_of_its_actions():
    environment = counting(limit=5)
    episode = pgjax.play(environment, pgjax.random_policy(environment), jax.random.key(0), ())
    np.testing.assert_array_equal(episode.state, np.arange(6))
    np.testing.assert_array_equal(episode.observation, np.arange(6)[:, None])
    np.testing.assert_array_equal(episode.reward, np.arange(1, 6))
    assert episode.action.shape == (5,)
    cut_off = pgjax.play(counting(limit=20, horizon=8), pgjax.random_policy(counting()), jax.random.key(0), ())
    np.testing.assert_array_equal(cut_off.state, np.arange(9))


def test_a_policy_with_memory_remembers():
    environment = recall()
    episode = pgjax.play(environment, remembering(), jax.random.key(0), jnp.array([[-1e4, 1e4]]))
    assert episode.reward.sum() == 1  # logits follow the sign of what was shown, so it names the bit


def test_actions_are_those_that_the_environment_gets():
    environment = pgjax.from_gymnax("Pendulum-v1", max_steps_in_episode=5)
    far = pgjax.imitation.scripted(lambda x: jnp.full((*x.shape[:-1], 1), 9.0), environment)
    assert (pgjax.play(environment, far.policy, jax.random.key(0), far.params).action == 2).all()


def test_a_score_takes_the_place_of_rewards():
    scored = counting()._replace(score=lambda trajectory, params: pgjax.environments.Score(10 * trajectory.reward))
    episode = pgjax.play(scored, pgjax.random_policy(scored), jax.random.key(0), ())
    np.testing.assert_array_equal(episode.reward, 10 * np.arange(1, 6))


def test_a_film_shows_every_so_many_steps_and_the_end(tmp_path):
    environment = counting(limit=50, horizon=30)
    episode = pgjax.play(environment, pgjax.random_policy(environment), jax.random.key(0), ())
    pgjax.save_animation(environment, episode, tmp_path / "film.gif", frames_per_second=2, most=8)
    with Image.open(tmp_path / "film.gif") as film:
        # Steps 0, 4, …, 28, the last one, and that one again for a second; equal frames may be stored as one.
        assert film.n_frames in range(9, 12)
        assert film.info["duration"] == 500


def test_pictures_go_home_and_a_dollar_in_a_name_is_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = counting(limit=3)._replace(name="$_{$")
    episode = pgjax.play(environment, pgjax.random_policy(environment), jax.random.key(0), ())
    pgjax.analysis.save_frame(environment, episode, "~/one.png")
    pgjax.analysis.save_frames([(environment, episode)], "~/several.png")
    pgjax.save_animation(environment, episode, "~/film.gif", most=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.gif", "one.png", "several.png"]


def test_channels_have_colours_and_later_ones_lie_on_top():
    class Axes:
        def imshow(self, picture, **_):
            self.picture = picture

        def set(self, **_):
            pass

    axes = Axes()
    draw_image(axes, np.array([[[0, 0], [1, 0], [1, 1]], [[0, 1], [0, 0], [0, 0]]], float))
    np.testing.assert_array_equal(axes.picture[0, 0], 1)
    np.testing.assert_array_equal(axes.picture[0, 2], axes.picture[1, 0])
    assert (axes.picture[0, 1] != axes.picture[0, 2]).any()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda e, episode, path: pgjax.analysis.save_frame(e, episode, path, 6),
            "expected 0 to 5 steps of this episode",
        ),
        (lambda e, episode, path: pgjax.save_animation(e, episode, path, most=0), "expected 1 or more frames"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message, tmp_path):
    environment = counting()
    episode = pgjax.play(environment, pgjax.random_policy(environment), jax.random.key(0), ())
    with pytest.raises(pgjax.InputError, match=message):
        draw(environment, episode, tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
