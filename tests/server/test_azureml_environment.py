"""What Azure sets and mounts, made into settings and a model's directory."""

import json

import pytest

from penstock.server.azureml.environment import deployment_from
from penstock.server.azureml.model_layout import mounted_model
from penstock.vocabulary.errors import ModelError, SettingsError

MLMODEL = """\
flavors:
  python_function: {loader_module: mlflow.transformers}
  transformers: {task: text-generation}
metadata:
  base_model_name: tiny
  model_provider_name: Somebody
  base_model_task: chat-completion
"""


@pytest.fixture
def mount(tmp_path):
    """A function that writes files, by path and content, below the mounted folder."""

    def write(**files: str):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    def written(files: dict[str, str]):
        return write(**{name.replace("/", "__"): content for name, content in files.items()})

    return written


def deployed(folder, **environment: str):
    return deployment_from({"AZUREML_MODEL_DIR": str(folder), **environment})


def test_an_mlflow_folder_tells_its_task_and_names(mount):
    root = mount(
        {"mlflow_model_folder/MLmodel": MLMODEL, "mlflow_model_folder/model/config.json": "{}"}
    )
    model = mounted_model(root)
    assert model.directory == root / "mlflow_model_folder" / "model"
    assert (model.task, model.name, model.provider) == ("text-generation", "tiny", "Somebody")


def test_an_older_mlflow_folder_is_put_together(mount):
    data = "mlflow_model_folder/data"
    root = mount(
        {
            "mlflow_model_folder/MLmodel": "metadata: {base_model_task: chat-completion}",
            f"{data}/model/model.safetensors": "weights",
            f"{data}/config/config.json": "{}",
            f"{data}/tokenizer/tokenizer.json": "{}",
        }
    )
    model = mounted_model(root)
    found = {file.name: file.read_text() for file in model.directory.iterdir()}
    assert found == {"model.safetensors": "weights", "config.json": "{}", "tokenizer.json": "{}"}
    assert model.task == "chat-completion"


@pytest.mark.parametrize("place", ["model_artifact/model", "model", "llama/2", "."])
def test_a_plain_model_is_found_below_the_folder_or_in_its_only_folder(mount, place):
    root = mount({f"{place}/config.json": "{}"})
    start = root / "llama" if place == "llama/2" else root
    assert mounted_model(start).directory == root / place


@pytest.mark.parametrize(
    "files, problem",
    [
        ({"a/readme.md": ""}, "holds no model in a layout of Azure's"),
        ({"mlflow_model_folder/MLmodel": "[1]"}, "is no mapping"),
        ({"mlflow_model_folder/MLmodel": "a: ["}, "cannot be read"),
        ({"mlflow_model_folder/MLmodel": MLMODEL}, "neither model nor data/model"),
    ],
)
def test_a_folder_without_a_model_is_refused(mount, files, problem):
    with pytest.raises(ModelError, match=problem):
        mounted_model(mount(files))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match="There is no folder"):
        mounted_model(tmp_path, "elsewhere")


@pytest.fixture
def plain(mount):
    return mount({"config.json": json.dumps({})})


def test_it_listens_for_azure_and_speaks_azure_s_dialect(plain):
    deployment = deployed(plain, TASK_TYPE="text-generation")
    server = deployment.server
    assert (server.host, server.port, server.dialects) == ("0.0.0.0", 5001, ("azureml",))
    assert server.azureml_task == "text-generation"
    assert deployment.engine.model == str(plain)
    assert deployment.log_level == "WARNING"


def test_azure_s_word_for_the_default_number_of_replicas_is_understood(plain):
    deployment = deployed(plain, TASK_TYPE="text-generation", AML_NUM_REPLICAS="-1")
    assert deployment.front.replicas == 1


def test_vllm_s_flags_become_ours_with_or_without_a_prefix(plain):
    deployment = deployed(
        plain,
        TASK_TYPE="chat-completion",
        MAX_MODEL_LEN="2048",
        AML_MAX_NUM_SEQS="8",
        DTYPE="half",
        ENABLE_PREFIX_CACHING="false",
        MODEL_NAME="mine",
        NUM_REPLICAS="2",
        PENSTOCK_DEVICE_MAP="[[1], [3]]",
        PENSTOCK_MAX_WAITING="3",
        PENSTOCK_LEGACY_SCORE="1",
        PENSTOCK_API_KEY="hush",
        PENSTOCK_DIALECT="azureml, tgi",
    )
    engine, server = deployment.engine, deployment.server
    assert (engine.max_model_len, engine.max_num_seqs, engine.weights) == (2048, 8, "float16")
    assert engine.prefix_caching is False
    front = deployment.front
    assert (front.replicas, front.device_map, front.max_waiting) == (2, "[[1], [3]]", 3)
    assert server.legacy_score is True
    assert (server.served_model_name, server.dialects) == ("mine", ("azureml", "tgi"))
    assert server.api_keys == ("hush",)
    assert "hush" not in repr(server)


def test_what_has_no_effect_is_said_and_why(plain):
    deployment = deployed(plain, TASK_TYPE="text-generation", WORKER_COUNT="128", ENGINE_NAME="mii")
    assert deployment.notes == [
        "ENGINE_NAME has no effect: Penstock is the engine.",
        "WORKER_COUNT has no effect: one asynchronous front answers all.",
    ]


@pytest.mark.parametrize(
    "environment, problem",
    [
        ({}, "The model's task is not known"),
        ({"TASK_TYPE": "fill-mask"}, "'fill-mask' is not served"),
        ({"TENSOR_PARALLEL": "2"}, "TENSOR_PARALLEL is set"),
        ({"AML_LORA_MODULES": "a=b"}, "LORA_MODULES is set"),
        (
            {"TASK_TYPE": "text-generation", "AZUREML_LOG_LEVEL": "loud"},
            "AZUREML_LOG_LEVEL is 'loud'",
        ),
        ({"TASK_TYPE": "text-generation", "MAX_MODEL_LEN": "much"}, "MAX_MODEL_LEN: Expected"),
        (
            {"TASK_TYPE": "text-generation", "MAX_MODEL_LEN": "1", "MAX_TOTAL_TOKENS": "2"},
            "MAX_MODEL_LEN and MAX_TOTAL_TOKENS say different things",
        ),
        (
            {"TASK_TYPE": "text-generation", "CONTENT_SAFETY_ENDPOINT": "https://hush"},
            "nothing would check content",
        ),
    ],
)
def test_what_would_not_be_done_as_asked_is_refused_without_telling_any_value(
    plain, environment, problem
):
    with pytest.raises(SettingsError, match=problem) as raised:
        deployed(plain, **environment)
    assert "hush" not in str(raised.value)


def test_without_a_mounted_folder_it_says_what_is_missing():
    with pytest.raises(SettingsError, match="AZUREML_MODEL_DIR is not set"):
        deployment_from({})
