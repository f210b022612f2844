"""One file per family of models, and the table that says which architecture is in which."""

from collections.abc import Mapping

ARCHITECTURES: Mapping[str, str] = {
    "FalconForCausalLM": "falcon",
    "GPTNeoXForCausalLM": "gpt_neox",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "OPTForCausalLM": "opt",
    "PhiForCausalLM": "phi",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""From the name in config.json to the module here."""
