"""Reinforcement learning from human feedback: sample, rank, model the rankings, optimise; and again from the top.

The lecture's summary, as one algorithm. A round begins with outputs of the model as it is now; annotators rank them; a
reward model is fitted to all rankings so far; then REINFORCE, the one of CartPole, makes outputs more likely that score
better, and pays for straying from the supervised model. All of it is a pure function of a key and of numbers, so many
seeds and settings are one `vmap`, and a `sweep` can drive, save and resume it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax.algorithms.base import Algorithm, train
from pgjax.algorithms.on_policy import State, reinforce
from pgjax.batching import together
from pgjax.environments.base import Environment
from pgjax.errors import InputError
from pgjax.estimators.baselines import Baseline, leave_one_out
from pgjax.estimators.returns import Credit, reward_to_go
from pgjax.penalty import kl_penalty
from pgjax.policies.base import Policy
from pgjax.rlhf.diversity import distinct_n, self_overlap
from pgjax.rlhf.gold import Gold, output_of
from pgjax.rlhf.likelihood import accuracy_ceiling, pair_accuracy
from pgjax.rlhf.preferences import Annotators, Rankings, check_annotators, first_different, rank, tastes, utilities
from pgjax.rlhf.reward_models import RewardModel, ensemble_score, reward_modelling
from pgjax.rollout import collect
from pgjax.text.decoder import context_of
from pgjax.text.environment import Judgement, text_environment, written
from pgjax.text.environment import outputs as written_by
from pgjax.text.tokens import check_tokens
from pgjax.trees import PyTree

FIRST_OUTPUTS = 512  # of the supervised model, to normalise scores


class LearnedReward(NamedTuple):
    """What scores texts while a model is optimised, normalised: mean 0 and deviation 1 under the supervised model."""

    params: PyTree  # θ_r, each leaf [members, ...]
    mean: jax.Array  # [], of the scores of the supervised model's outputs
    spread: jax.Array  # [], their standard deviation
    caution: jax.Array  # [], what disagreement of an ensemble costs, see `ensemble_score`


class Tuned(NamedTuple):
    """What a run ends with, and a sweep keeps."""

    policy: PyTree  # θ
    reward: LearnedReward  # r, of the last round


class FeedbackHyperparameters(NamedTuple):
    """The numbers of a run; all are traced, so any can be swept."""

    supervised: PyTree  # θ_SL; () to let the policy's `init` draw it
    reward_body: PyTree  # weights of a language model that reward models begin with; () for new ones
    learning_rate: Any  # η of REINFORCE
    beta: Any  # β of the KL penalty; where there is a target, its first value
    kl_target: Any  # nats an episode that β is steered to; 0 to leave β as it is
    steering: Any  # how fast β follows
    baseline_decay: Any  # of a running average, and of the scale of a learned value
    value_learning_rate: Any
    entropy_coefficient: Any
    comparisons: Any  # rankings of a round that are fitted, at most as many as there is room for
    reward_learning_rate: Any  # η of the reward model
    reward_weight_decay: Any
    caution: Any  # see `LearnedReward`
    annotators: Annotators


class FeedbackState(NamedTuple):
    """What a run carries."""

    key: jax.Array
    iteration: jax.Array  # [] int32
    hyperparameters: FeedbackHyperparameters
    policy: State  # REINFORCE's; the reward model, β and θ_SL are in its environment's params
    rankings: Rankings  # of all rounds so far, and those that were given, [rounds · N + G, K]
    first_outputs: jax.Array  # [S, W + T], some of the supervised model's, under which scores are normalised
    measured: Mapping[str, jax.Array]  # each [], what rankings that it has not seen say of this round's reward model

    @property
    def params(self) -> Tuned:
        """The policy's θ, and the reward that it was optimised for."""
        return Tuned(self.policy.params, self.policy.hyperparameters.environment.environment.judge)


class Evaluation(NamedTuple):
    """What outputs of a model are worth, each [E]; so many beside each other have the same prompt."""

    tokens: jax.Array  # [E, W + T]
    gold: jax.Array | None  # None where nobody knows it
    proxy: jax.Array  # the learned reward, normalised
    length: jax.Array  # tokens, eos included
    kl: jax.Array  # Σ_t ln f/f_SL, an estimate of KL(f ‖ f_SL) without bias; one of them may be negative


class Feedback(NamedTuple):
    """The algorithm, and what it is made of."""

    algorithm: Algorithm
    environment: Environment  # of texts, with the learned reward and the KL penalty
    evaluate: Callable[..., Evaluation]  # of (key, θ, reward: LearnedReward, θ_SL), fresh outputs of θ


def steer(beta: jax.Array, kl: jax.Array, target: jax.Array, steering: jax.Array) -> jax.Array:
    """Return β · (1 + steering · e), with e = KL/target − 1 cut to [−0.2, 0.2]; β if the target is 0.

    Source: Ziegler et al., *Fine-tuning language models from human preferences*, 2019, §2.2.
    """
    error = jnp.clip(kl / jnp.where(target > 0, target, 1) - 1, -0.2, 0.2)
    return jnp.where(target > 0, beta * (1 + steering * error), beta)


def feedback(
    policy: Policy,
    model: RewardModel,
    gold: Gold | None,
    prompts: Any,
    *,
    vocabulary: int,
    length: int,
    rounds: int = 1,
    updates: int = 100,
    rankings: int = 1024,
    outputs: int = 2,
    drawn: int = 16,
    given: Rankings | None = None,
    held_out: Rankings | None = None,
    test_rankings: int = 128,
    annotators: int = 1,
    members: int = 1,
    reward_updates: int = 25,
    reward_steps: int = 10,
    episodes: int = 64,
    same_start: int = 4,
    evaluated: int = 1024,
    candidates: int = 32,
    credit: Credit | None = None,
    baseline: Baseline | None = None,
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam,
) -> Feedback:
    """Return reinforcement learning from human feedback as an algorithm, with numbers `FeedbackHyperparameters`.

    An update is one of REINFORCE; the first of each round begins with all the rest of it:

    1. outputs are drawn from the model as it is now, and nobody reuses those of earlier rounds for this; of those to
       one prompt, K that differ are kept, and a ranking for which there are fewer is made by nobody;
    2. annotators rank them: a Plackett–Luce choice by the gold reward (for two outputs: Bradley–Terry), with their
       biases, see `Annotators`;
    3. a reward model is fitted, from where it began, to the rankings of all rounds, and its scores are normalised;
    4. the following updates optimise θ: reward r(θ_r, ·) at the end, − β ln f/f_SL at each token.

    θ_SL, from which θ starts and from which it is kept, stays what it is. After `rounds` rounds nothing is ranked any
    more. Beside REINFORCE's metrics there are: gold, proxy (normalised), length, kl, distinct_2 and self_overlap of the
    outputs of the update, and steered_beta. Of the round there are, where people are simulated: accuracy, of the reward
    model on pairs of different outputs that it has not seen, ceiling of that, and identical_texts, the fraction of
    rankings for which there were no K different outputs; and where rankings are held out: held_out_accuracy on those.

    Nobody is simulated where `rankings` is 0. Then people have ranked elsewhere (`given`), and a round fits what they
    said once more. The gold reward may be unknown (None), and is not reported then.

    Args:
        policy: f; its `init` draws θ_SL where the hyper-parameters hold none (`pgjax.pretrained` makes it do so).
        model: r.
        gold: What simulated people want. Nobody but they sees it; what is reported of it serves to judge the method.
            None if nobody knows what people want, and so nobody can be simulated.
        prompts: X_{1:k}, see `text`.
        vocabulary: V.
        length: T.
        rounds: R, how often people are asked.
        updates: U of REINFORCE in a round; R · U are the iterations of the whole.
        rankings: N of a round by simulated people, at most; the hyper-parameter `comparisons` says how many are used.
            It may be 0 where rankings are given.
        outputs: K that are ranked together.
        drawn: Outputs drawn for each ranking, K or more, among which K are sought that differ. A model that has
            learned what is liked writes the same text again and again; more of them find more that differ.
        given: Rankings of K outputs by people from elsewhere (`load_rankings`), which are fitted in every round too.
        held_out: Rankings of K outputs by people from elsewhere that measure the reward model and are never fitted; see
            `split_by_prompt`.
        test_rankings: More rankings of a round by simulated people, that measure the reward model and nothing else.
        annotators: How many people share the rankings.
        members: Reward models of an ensemble.
        reward_updates: Of `reward_modelling`, in a round.
        reward_steps: Gradient steps of each.
        episodes: E of an update of REINFORCE.
        same_start: So many of them have the same prompt.
        evaluated: Outputs of an `evaluate`.
        candidates: So many of these have the same prompt, to choose the best of some of them.
        credit: `reward_to_go()` if not given.
        baseline: `leave_one_out(among=same_start)` if not given.
        optimizer: Of REINFORCE, from η to an optax transformation.

    Raises:
        InputError: If a count is out of range or parts do not fit together, or people are to be simulated without a
            gold reward; from `hyperparameters`, if β or another number is.

    Source: the lecture; Christiano et al., *Deep reinforcement learning from human preferences*, 2017; Ouyang et al.,
    *Training language models to follow instructions with human feedback*, 2022; for REINFORCE with leave-one-out,
    Ahmadian et al., *Back to basics*, 2024.
    """
    counts = {"rounds": rounds, "updates of a round": updates, "test rankings": test_rankings}
    counts |= {"annotators": annotators, "members of an ensemble": members}
    counts |= {"updates of the reward model": reward_updates, "evaluated outputs": evaluated}
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"expected 1 or more {name}, got {count}")
    least = 1 if given is None else 0
    if rankings < least:
        raise InputError(f"expected {least} or more rankings, got {rankings}")
    if gold is None and rankings:
        raise InputError(f"expected no rankings by simulated people without a gold reward, got {rankings}")
    if outputs < 2:
        raise InputError(f"expected 2 or more outputs to rank together, got {outputs}")
    if drawn < outputs:
        raise InputError(f"expected {outputs} or more outputs drawn for a ranking of {outputs}, got {drawn}")
    W = np.shape(prompts)[-1]
    for theirs in (given, held_out):
        if theirs is None:
            continue
        if np.shape(theirs.tokens)[1:] != (outputs, W + length):
            came = np.shape(theirs.tokens)[1:]
            raise InputError(f"expected rankings of {outputs} outputs in rows of {W + length} tokens, got {came}")
        check_tokens(theirs.tokens, vocabulary)
    context = context_of(policy)
    if context is not None and W + length - 1 > context:
        raise InputError(
            f"expected prompts and outputs of at most {context + 1} tokens together, as the context allows, got "
            f"{W} and {length}"
        )
    if model.sizes is not None and (model.sizes.vocabulary != vocabulary or model.sizes.context < W + length):
        raise InputError(
            f"expected a reward model for a vocabulary of {vocabulary} and texts of {W + length} tokens, got one for "
            f"{model.sizes.vocabulary} and {model.sizes.context}"
        )
    room, most = rankings, max(rankings, 1)

    def judge(tokens: jax.Array, output: jax.Array, params: LearnedReward) -> Judgement:
        proxy = (ensemble_score(model, params.params, tokens, params.caution) - params.mean) / params.spread
        distinct = jnp.broadcast_to(distinct_n(tokens, output, 2, vocabulary), proxy.shape)
        overlap = self_overlap(tokens, output, vocabulary)
        notes = {} if gold is None else {"gold": gold(tokens, output)}
        return Judgement(proxy, notes | {"proxy": proxy, "distinct_2": distinct, "self_overlap": overlap})

    def members_of(key: jax.Array) -> PyTree:
        return jax.vmap(lambda key: model.init(key, ()))(jax.random.split(key, members))

    def unknown(key: jax.Array, caution: jax.Array) -> LearnedReward:
        return LearnedReward(members_of(key), jnp.zeros(()), jnp.ones(()), caution)

    like = jax.eval_shape(unknown, jax.random.key(0), jnp.zeros(()))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    texts = text_environment(prompts, vocabulary, length, judge, nothing)
    supervised = jax.eval_shape(policy.init, jax.random.key(0))
    absent = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), supervised)
    environment = kl_penalty(texts, policy, absent)
    learner = reinforce(
        environment,
        policy,
        episodes=episodes,
        same_start=same_start,
        credit=reward_to_go() if credit is None else credit,
        baseline=leave_one_out(among=same_start) if baseline is None else baseline,
        optimizer=optimizer,
    )
    asked = room + test_rankings if room else 0
    names = ["accuracy", "ceiling", "identical_texts"] if room else []
    names += [] if held_out is None else ["held_out_accuracy"]
    # As many texts at once as are ranked, and so many times that all are drawn.
    parts = -(-drawn // outputs)
    draw = written_by(texts, policy, -(-max(asked, 1) // parts) * drawn, same_start=drawn)
    play = collect(environment, policy, evaluated, same_start=candidates)
    before = written_by(texts, policy, FIRST_OUTPUTS)

    def hyperparameters(
        supervised: PyTree = (),
        reward_body: PyTree = (),
        learning_rate: Any = 3e-4,
        beta: Any = 0.1,
        kl_target: Any = 0.0,
        steering: Any = 0.1,
        baseline_decay: Any = 0.9,
        value_learning_rate: Any = 1e-3,
        entropy_coefficient: Any = 0.0,
        comparisons: Any = most,
        reward_learning_rate: Any = 1e-3,
        reward_weight_decay: Any = 0.0,
        caution: Any = 0.0,
        annotators: Annotators | None = None,
    ) -> FeedbackHyperparameters:
        people = Annotators() if annotators is None else annotators
        check_annotators(people)
        least = {"KL coefficient β": beta, "KL target": kl_target, "learning rate": learning_rate}
        least |= {"speed of steering": steering}
        for name, number in least.items():
            if isinstance(number, int | float) and not number >= 0:
                raise InputError(f"expected a {name} of 0 or more, got {number}")
        if isinstance(beta, int | float) and isinstance(kl_target, int | float) and kl_target > 0 and not beta > 0:
            raise InputError(f"expected a first β above 0 for a KL target, as steering multiplies it, got {beta}")
        if isinstance(comparisons, int | float) and not 1 <= comparisons <= most:
            raise InputError(f"expected 1 to {most} comparisons of a round, got {comparisons}")
        return FeedbackHyperparameters(
            supervised,
            reward_body,
            jnp.asarray(learning_rate, float),
            jnp.asarray(beta, float),
            jnp.asarray(kl_target, float),
            jnp.asarray(steering, float),
            jnp.asarray(baseline_decay, float),
            jnp.asarray(value_learning_rate, float),
            jnp.asarray(entropy_coefficient, float),
            jnp.asarray(comparisons, float),
            jnp.asarray(reward_learning_rate, float),
            jnp.asarray(reward_weight_decay, float),
            jnp.asarray(caution, float),
            Annotators(*(jnp.asarray(number, float) for number in people)),
        )

    def init(key: jax.Array, hyperparameters: FeedbackHyperparameters) -> FeedbackState:
        key, policy_key, learner_key, judge_key, first_key = jax.random.split(key, 5)
        theta = hyperparameters.supervised
        if not jax.tree.leaves(theta):
            theta = policy.init(policy_key)
        start = environment.params._replace(
            beta=hyperparameters.beta,
            reference=theta,
            environment=texts.params._replace(judge=unknown(judge_key, hyperparameters.caution)),
        )
        numbers = learner.hyperparameters(
            learning_rate=hyperparameters.learning_rate,
            baseline_decay=hyperparameters.baseline_decay,
            value_learning_rate=hyperparameters.value_learning_rate,
            entropy_coefficient=hyperparameters.entropy_coefficient,
            environment=start,
        )
        begun = learner.init(learner_key, numbers)
        begun = begun._replace(params=theta, optimizer=optimizer(hyperparameters.learning_rate).init(theta))
        N, zero = rounds * room, jnp.zeros(())
        known = Rankings(
            jnp.zeros((N, outputs, W + length), jnp.int32),
            jnp.zeros((N, outputs), jnp.int32),
            jnp.zeros(N, bool),
            jnp.zeros(N, jnp.int32),
        )
        if given is not None:
            known = jax.tree.map(lambda room, these: jnp.concatenate([room, jnp.asarray(these)]), known, given)
        first = before(first_key, theta, start.environment)
        return FeedbackState(key, jnp.int32(0), hyperparameters, begun, known, first, dict.fromkeys(names, zero))

    def sample(key: jax.Array, params: PyTree, env_params: PyTree) -> tuple[jax.Array, jax.Array]:
        """Return outputs to be ranked, [asked, K, W + T], and whether the K of a ranking differ, [asked] bool."""

        def part(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            draw_key, place_key = jax.random.split(key)
            tokens = draw(draw_key, params, env_params).reshape(-1, drawn, W + length)
            chosen, enough = first_different(tokens, outputs)
            # The first to be drawn is the likeliest text more often than the others: places are dealt out by chance.
            shown = jax.random.permutation(place_key, chosen, axis=1, independent=True)
            return jnp.take_along_axis(tokens, shown[:, :, None], axis=1), enough

        found = jax.lax.map(part, jax.random.split(key, parts))
        tokens, enough = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:asked], found)
        return tokens, enough

    def people_rank(key: jax.Array, tokens: jax.Array, numbers: Annotators, state: FeedbackState) -> tuple[Any, Any]:
        """Return rankings of outputs [N, K, L], and the utilities [N, K] that they were drawn with."""
        assert gold is not None  # or there are no rankings
        N, K, L = tokens.shape
        flat = tokens.reshape(N * K, L)
        output = output_of(flat, W)
        person_key, rank_key = jax.random.split(key)
        person = jax.random.randint(person_key, (N,), 0, annotators)
        # Who these people are is the same in every round.
        taste = tastes(
            jax.random.fold_in(state.key, rounds), tokens, output.reshape(N, K, L), person, annotators, vocabulary
        )
        length = jnp.sum(output, axis=1, dtype=taste.dtype).reshape(N, K)
        u = utilities(numbers, gold(flat, output).reshape(N, K), length, taste)
        return Rankings(tokens, rank(rank_key, u), jnp.ones(N, bool), person), u

    def ask(state: FeedbackState) -> FeedbackState:
        """Sample, rank, and model the rankings."""
        numbers, learned = state.hyperparameters, state.policy
        turn = state.iteration // updates
        draw_key, rank_key, fit_key, test_key = jax.random.split(jax.random.fold_in(state.key, turn), 4)
        params = learned.hyperparameters.environment
        known, measured = state.rankings, {}
        if room:
            tokens, enough = sample(draw_key, learned.params, params.environment)
            new, _ = people_rank(rank_key, tokens[:room], numbers.annotators, state)
            test, u = people_rank(test_key, tokens[room:], numbers.annotators, state)
            wanted = jnp.concatenate([jnp.arange(room) < numbers.comparisons, jnp.ones(test_rankings, bool)])
            real = wanted & enough
            new, test = new._replace(mask=real[:room]), test._replace(mask=real[room:])
            known = jax.tree.map(
                lambda rows, more: jax.lax.dynamic_update_slice_in_dim(rows, more, turn * room, axis=0), known, new
            )
        fitting = reward_modelling(model, known, body=numbers.reward_body, steps=reward_steps)
        fit = train(fitting, reward_updates)
        how = fitting.hyperparameters(numbers.reward_learning_rate, numbers.reward_weight_decay)
        fitted = jax.vmap(lambda key: fit(key, how)[0].params)(jax.random.split(fit_key, members))

        def scores(tokens: jax.Array) -> jax.Array:
            return ensemble_score(model, fitted, tokens, numbers.caution)

        def accuracy(rankings: Rankings) -> jax.Array:
            tokens, order, mask, _ = (jnp.asarray(leaf) for leaf in rankings)
            return pair_accuracy(scores(tokens.reshape(-1, W + length)).reshape(order.shape), order, mask)

        if room:
            measured["accuracy"] = accuracy(test)
            measured["ceiling"] = accuracy_ceiling(u, test.mask)
            measured["identical_texts"] = jnp.sum(wanted & ~enough) / jnp.sum(wanted)
        if held_out is not None:
            measured["held_out_accuracy"] = accuracy(held_out)
        usual = scores(state.first_outputs)
        judged = LearnedReward(fitted, jnp.mean(usual), jnp.maximum(jnp.std(usual), 1e-6), numbers.caution)
        params = params._replace(environment=params.environment._replace(judge=judged))
        return state._replace(
            policy=learned._replace(hyperparameters=learned.hyperparameters._replace(environment=params)),
            rankings=known,
            measured={name: jnp.asarray(number, float) for name, number in measured.items()},
        )

    def update(state: FeedbackState) -> tuple[FeedbackState, Any]:
        # All runs of a batch are at the same iteration, so a `cond` can stay one under `vmap`.
        begins = (state.iteration % updates == 0) & (state.iteration < rounds * updates)
        state = jax.lax.cond(together(begins), ask, lambda state: state, state)
        learned, metrics = learner.update(state.policy)
        params = learned.hyperparameters.environment
        numbers = state.hyperparameters
        beta = steer(params.beta, metrics.notes["kl"], numbers.kl_target, numbers.steering)
        more = {**state.measured, "steered_beta": params.beta}
        learned = learned._replace(
            hyperparameters=learned.hyperparameters._replace(environment=params._replace(beta=beta))
        )
        reported = metrics._replace(notes={**metrics.notes, **more})
        return state._replace(iteration=state.iteration + 1, policy=learned), reported

    def evaluate(key: jax.Array, params: PyTree, reward: LearnedReward, supervised: PyTree) -> Evaluation:
        numbers = environment.params._replace(
            beta=jnp.zeros(()), reference=supervised, environment=texts.params._replace(judge=reward)
        )
        trajectory = play(key, params, numbers)
        sums = {name: jnp.sum(note, axis=0) for name, note in trajectory.notes.items()}
        return Evaluation(written(trajectory, length), sums.get("gold"), sums["proxy"], sums["length"], sums["kl"])

    return Feedback(Algorithm(init, update, hyperparameters), environment, evaluate)
