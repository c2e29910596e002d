"""Resolving a spec: profiles, overrides, and one line for each mistake."""

import json
from dataclasses import asdict

import pytest

from early_exit.exits import THRESHOLDS
from orchestrator.errors import UsageError, nearest
from orchestrator.plan.spec import PROFILES, Spec, canonical_json, resolve


def refusal(profile, *settings, config=None):
    with pytest.raises(UsageError) as caught:
        resolve(profile, list(settings), config)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "spec.toml"
        path.write_text(text, "utf-8")
        return path

    return write


# ---- profiles and what lies over them -----------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_a_whole_valid_spec(profile):
    spec = resolve(profile, [])
    assert spec.profile == profile
    assert spec.p_tar == 0.8
    assert spec.levels == {"gaussian_blur": (1, 2, 3, 4, 5), "gaussian_noise": (5, 10, 20, 30, 40)}


def test_the_papers_profile_has_the_papers_settings():
    spec = resolve("paper", [])
    assert (spec.image_size, spec.spectrum_size, spec.device) == (300, 224, "cuda")
    assert (spec.architecture.width, spec.architecture.stem_stride) == (1.0, 2)
    assert spec.augmentation == "paper"
    assert spec.fidelity == ("corrected",)


def test_the_papers_profile_trains_as_the_paper_does():
    """Stages 1.5e-4 and heads 1e-2 in the backbone, 1e-2 in the experts (docs/paper.md §6), the classifier as in §4."""
    spec = resolve("paper", [])
    alike = {"batch_size": 32, "weight_decay": 5e-4, "schedule": "cosine_annealing", "patience": 11}
    assert asdict(spec.expert) == alike | {"epochs": 50, "learning_rate": 0.01}
    assert asdict(spec.backbone) == alike | {
        "epochs": 50,
        "learning_rate": 1.5e-4,
        "head_learning_rate": 0.01,
        "optimizer": "adam",
    }
    assert asdict(spec.classifier) == {
        "epochs": 50,
        "batch_size": 128,
        "learning_rate": 0.001,
        "weight_decay": 5e-4,
        "schedule": "constant",
        "patience": 11,
    }


def test_photographs_keep_their_backbone_frozen():
    assert resolve("photos", []).backbone.epochs == 0


def test_a_spec_survives_its_json():
    spec = resolve("paper", ["levels.gaussian_blur=[2, 4]"])
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
    assert Spec.model_validate(json.loads(canonical_json(spec.model_dump(mode="json")))) == spec


def test_a_spec_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        resolve("demo", []).seeds = (1,)


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("seeds=7", "seeds", (7,)),
        ("seeds=[2, 0, 1]", "seeds", (2, 0, 1)),
        ("p_tar=0.9", "p_tar", 0.9),
        ("p_tar=1", "p_tar", 1.0),
        ("device=cuda", "device", "cuda"),
        ('device="cuda"', "device", "cuda"),
        ("hardware=AMD EPYC 7B12", "hardware", "AMD EPYC 7B12"),
        ("levels.gaussian_blur=[1, 3]", "levels.gaussian_blur", (1, 3)),
        ("backbone.learning_rate=1e-3", "backbone.learning_rate", 0.001),
        (" seeds = 7 ", "seeds", (7,)),
    ],
)
def test_a_setting_lies_over_the_profile(setting, path, value):
    found = resolve("demo", [setting])
    for part in path.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_a_setting_leaves_its_neighbours_alone():
    spec, plain = resolve("demo", ["backbone.epochs=9"]), resolve("demo", [])
    assert spec.backbone.epochs == 9
    assert spec.backbone.batch_size == plain.backbone.batch_size
    assert spec.expert == plain.expert


def test_a_level_of_another_kind_adds_the_kind():
    spec, plain = resolve("demo", ["levels.motion_blur=[5, 9]"]), resolve("demo", [])
    assert spec.levels == plain.levels | {"motion_blur": (5, 9)}
    assert spec.kinds.experts == ("pristine", "gaussian_blur", "gaussian_noise", "motion_blur")


def test_a_level_that_a_kind_does_not_have_is_refused_with_those_it_has():
    assert refusal("demo", "levels.jpeg=[100]") == "field 'levels': jpeg: its levels are 1 to 99."


def test_every_profile_has_the_baselines_that_cost_next_to_nothing():
    for profile in ("demo", "photos", "paper"):
        assert {"generalist", "edge-only", "cloud-only"} <= set(resolve(profile, []).baselines)
    assert "total" not in resolve("demo", []).baselines


def test_baselines_are_a_name_a_list_or_none():
    assert resolve("demo", ["baselines=total"]).baselines == ("total",)
    assert resolve("demo", ["baselines=[]"]).kinds.policies[-1] == "classifier"


def test_an_unknown_baseline_is_refused_with_the_nearest():
    said = refusal("demo", 'baselines=["edge_only"]')
    assert said.startswith("field 'baselines': unknown 'edge_only'. Did you mean 'edge-only'?")


def test_settings_lie_over_the_file_and_the_file_over_the_profile(toml):
    path = toml("seeds = 1\nviews = 6\n[backbone]\nepochs = 7\n")
    spec = resolve("demo", ["seeds=2", "seeds=3"], path)
    assert (spec.seeds, spec.views, spec.backbone.epochs, spec.backbone.batch_size) == ((3,), 6, 7, 16)


def test_every_threshold_may_be_the_headline():
    assert len(THRESHOLDS) == 101
    for p_tar in THRESHOLDS:
        assert resolve("demo", [f"p_tar={p_tar}"]).p_tar == p_tar


def test_a_frozen_backbone_cannot_make_up_for_dropped_blocks():
    with pytest.raises(UsageError, match=r"fidelity released drops blocks.*backbone\.epochs=8"):
        resolve("photos", ["fidelity=released"])
    assert resolve("photos", ["fidelity=released", "backbone.epochs=8"]).fidelity == ("released",)


def test_a_frozen_backbone_stands_beside_a_trained_one_only():
    with pytest.raises(UsageError, match=r"fidelity frozen-backbone is what .*Leave it out, or train one"):
        resolve("photos", ["fidelity=frozen-backbone"])
    assert resolve("paper", ["fidelity=frozen-backbone"]).fidelity == ("frozen-backbone",)


# ---- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "field", "proposal"),
    [
        ("seed=1", "seed", "Did you mean 'seeds'?"),
        ("shardsize=1", "shardsize", "Did you mean 'shard_size'?"),
        ("backbone.epoch=1", "backbone.epoch", "Did you mean 'epochs'?"),
        ("levels.gausian_blur=[1]", "levels.gausian_blur", "Did you mean 'gaussian_blur'?"),
        ("levels.pristine=[1]", "levels.pristine", "Known: gaussian_blur, gaussian_noise, "),
        ("synthetic.image=200", "synthetic.image", "Did you mean 'images'?"),
        ("training.xyz=1", "training.xyz", "Known: threads."),
        ("zzz.yyy=1", "zzz", "Known: plan, profile, seeds, "),
    ],
)
def test_an_unknown_field_is_an_error_that_proposes_the_nearest(setting, field, proposal):
    message = refusal("demo", setting)
    assert message.startswith(f"unknown field '{field}'.")
    assert proposal in message


def test_an_unknown_profile_proposes_the_nearest():
    assert refusal("papr") == "unknown profile 'papr'. Did you mean 'paper'?"
    assert refusal("xyz") == "unknown profile 'xyz'. Known: demo, photos, paper."


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("seeds=-1", "seeds"),
        ("seeds=4294967296", "seeds"),
        ("seeds=1.5", "seeds"),
        ("seeds=ten", "seeds"),
        ("seeds=", "seeds"),
        ("seeds=true", "seeds"),
        ("seeds=[]", "seeds"),
        ("seeds=[1, 1]", "seeds"),
        ("fidelity=relased", "fidelity"),
        ("baselines=generalists", "baselines"),
        ('baselines=["total", "total"]', "baselines"),
        ("total_learning_rate=0", "total_learning_rate"),
        ("fidelity=[]", "fidelity"),
        ("split_seed=-1", "split_seed"),
        ("p_tar=0.805", "p_tar"),
        ("p_tar=1.01", "p_tar"),
        ("p_tar=-0.01", "p_tar"),
        ("p_tar=nan", "p_tar"),
        ("p_tar=inf", "p_tar"),
        ("device=tpu", "device"),
        ("payload=xml", "payload"),
        ("plan=half-paper", "plan"),
        ("image_size=16", "image_size"),
        ("image_size=1025", "image_size"),
        ("spectrum_size=0", "spectrum_size"),
        ("shard_size=0", "shard_size"),
        ("views=3", "views"),
        ("views=0", "views"),
        ("levels.gaussian_blur=[]", "levels"),
        ("levels.gaussian_blur=[0]", "levels"),
        ("levels.gaussian_noise=[256]", "levels"),
        ("levels.gaussian_noise=[5, 5]", "levels"),
        ("levels.gaussian_noise=[1.5]", "levels.gaussian_noise"),
        ("levels.gaussian_noise=[true]", "levels.gaussian_noise"),
        ("levels.jpeg=[100]", "levels"),
        ("levels.motion_blur=[1]", "levels"),
        ("levels.gaussian_noise=5", "levels.gaussian_noise"),
        ("levels=5", "levels"),
        ("architecture.width=0", "architecture"),
        ("architecture.width=nan", "architecture"),
        ("architecture.stem_stride=3", "architecture"),
        ("backbone.epochs=-1", "backbone"),
        ("backbone.epochs=10001", "backbone"),
        ("backbone.epochs=true", "backbone.epochs"),
        ("backbone.batch_size=0", "backbone"),
        ("backbone.learning_rate=0", "backbone"),
        ("backbone.learning_rate=nan", "backbone"),
        ("backbone.learning_rate=inf", "backbone"),
        ("backbone.weight_decay=-1", "backbone"),
        ("backbone.schedule=linear", "backbone"),
        ("backbone.patience=0", "backbone"),
        ("expert.epochs=0", "expert"),
        ("classifier.epochs=0", "classifier"),
        ("training.threads=0", "training"),
        ("training.threads=257", "training"),
        ("measurement.repeats=0", "measurement"),
        ("measurement.warm_ups=-1", "measurement"),
        ("synthetic.images=99", "synthetic"),
        ("synthetic.images=205", "synthetic"),
        ("synthetic.size=8", "synthetic"),
        ("synthetic.seed=-1", "synthetic"),
    ],
)
def test_a_value_out_of_bounds_names_its_field_and_the_reason(setting, field):
    message = refusal("demo", setting)
    assert message.startswith(f"field '{field}")
    assert len(message) < 200
    assert "pydantic" not in message


@pytest.mark.parametrize("value", ["true", "false", "1"])
def test_dropping_blocks_is_refused_with_the_fidelity_that_does_it(value):
    assert refusal("demo", f"architecture.drop_blocks={value}") == (
        "field 'architecture.drop_blocks': a fidelity decides this. Set fidelity=dropped-blocks instead."
    )


def test_a_stored_spec_can_be_read_again():
    stored = resolve("demo", []).model_dump(mode="json")
    assert "drop_blocks" not in stored["architecture"]
    assert Spec.model_validate(stored) == resolve("demo", [])


def test_a_refused_value_is_repeated():
    assert refusal("demo", "device=tpu") == "field 'device': input should be 'cpu' or 'cuda', got 'tpu'."


@pytest.mark.parametrize("setting", ["seed", "", "=1", "a-b=1", "a..b=1", ".seed=1", "1=1"])
def test_a_setting_that_is_none_says_how_one_looks(setting):
    assert refusal("demo", setting) == f"--set '{setting}': expected FIELD=VALUE, as in --set p_tar=0.9."


def test_a_profile_cannot_be_renamed(toml):
    """The name on every table is that of the settings."""
    assert "profile" in refusal("demo", "profile=paper")
    assert "profile" in refusal("demo", config=toml('profile = "paper"'))


@pytest.mark.parametrize("setting", ["levels=" + "[" * 5000, "seed=1\nviews=8", "a." * 5000 + "a=1"])
def test_a_setting_that_is_no_value_is_refused(setting):
    refusal("demo", setting)


# ---- the file -----------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "no.toml"
    assert refusal("demo", config=path) == (
        f"config '{path}': No such file or directory. Name a readable TOML file."
    )


def test_a_folder_is_no_file(tmp_path):
    assert "Is a directory" in refusal("demo", config=tmp_path)


@pytest.mark.parametrize("text", ["seed: 1\n", "seed = \n", "seed = 1\nseed = 2\n", "x = " + "[" * 5000])
def test_a_file_that_is_not_toml_is_refused(toml, text):
    assert "not TOML" in refusal("demo", config=toml(text))


def test_a_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_bytes("seed = 1".encode("utf-16"))
    assert "not TOML" in refusal("demo", config=path)


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_bytes(b"#" * 1_000_001)
    assert "larger than 1 MB" in refusal("demo", config=path)


def test_an_unknown_field_in_a_file_proposes_the_nearest(toml):
    message = refusal("demo", config=toml("[backbone]\nepoch = 3\n"))
    assert message == "unknown field 'backbone.epoch'. Did you mean 'epochs'?"


# ---- small parts --------------------------------------------------------------------------------------


def test_canonical_json_is_one_text_per_value():
    assert canonical_json({"b": 1, "a": [1.5, None, "é"]}) == '{"a":[1.5,null,"\\u00e9"],"b":1}'
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json_has_no_numbers_that_are_none(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


def test_nearest_proposes_or_lists():
    assert nearest("sweeep", ["sweep", "predict"]) == " Did you mean 'sweep'?"
    assert nearest("x", ["sweep", "predict"]) == " Known: sweep, predict."
