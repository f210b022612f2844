"""Where a model is: a directory, or a name on the Hugging Face hub."""

from pathlib import Path

from penstock.vocabulary.errors import ModelError

NEEDED = [
    "*.json",
    "*.safetensors",
    "*.jinja",
    "tokenizer.model",
    "*.tiktoken",
    "merges.txt",
    "vocab.txt",
]
"""What of a hub repository is fetched: configuration, weights without code, tokenizer, templates.
"""
SUPERFLUOUS = ["consolidated*.safetensors"]
"""The same weights once more, under the names that their makers' own code gives them."""
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_TERMS = ("LICENSE*", "NOTICE*")


def beside_weights(model_dir: Path) -> list[Path]:
    """A model directory's files that are not weights: what serving it takes, and its terms."""
    patterns = [*NEEDED, *_TERMS]
    weights = {path for pattern in _WEIGHTS for path in model_dir.glob(pattern)}
    found = {path for pattern in patterns for path in model_dir.glob(pattern) if path.is_file()}
    return sorted(found - weights)


def resolve_model_dir(model: str | Path, revision: str | None = None) -> Path:
    """The directory that holds a model: the one named, or the hub's, fetched into its cache if need
    be.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{path} is a file.", remedy="Name the directory that holds the model.")
    if isinstance(model, Path) or path.is_absolute() or model.startswith(("./", "../", "~")):
        raise ModelError(f"There is no directory {path}.")
    return _from_hub(model, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=NEEDED, ignore_patterns=SUPERFLUOUS
            )
        )
    except HFValidationError as error:
        raise ModelError(
            f"{name!r} is neither a directory nor a name on the Hugging Face hub."
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"The hub lets only some accounts have {name}.",
            remedy="Accept its terms on the hub, then set HF_TOKEN.",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{name} is neither a directory here nor a public model on the Hugging Face hub.",
            remedy="Check the spelling; for a private model set HF_TOKEN.",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {revision!r} on the hub.") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{name} is not a directory here, and could not be fetched from the hub: {error}",
            remedy="Without a network, name a model directory.",
        ) from error
