"""MII's arguments in our settings: what has a name here, what asks for nothing, what is refused."""

from typing import Any

from penstock.vocabulary.errors import SettingsError

RENAMED = {
    "max_length": "max_model_len",
    "restful_api_host": "host",
    "restful_api_port": "port",
    "replica_num": "replicas",
}
"""MII's names of settings that mean the same here."""

REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "tensor_parallel": ((1,), "One process computes a model, so far; replica_num runs several."),
    "replica_configs": (([],), "replica_num and device_map say how many there are, and where."),
    "task": (("text-generation",), "Models generate text here."),
    "deployment_type": (("local",), "Deployments are on this machine."),
    "enable_restful_api": ((True, False), "Every deployment speaks HTTP."),
    "quantization_mode": ((None,), "weights='int8' and weights='int4' quantize here."),
    "inference_engine_config": (
        ({}, None),
        "Give its entries by their names here, such as token_budget, max_num_seqs, kv_cache_gib.",
    ),
    "model_config": ((None, {}), "Give its entries as arguments."),
    "mii_config": ((None, {}), "Give its entries as arguments."),
    "tokenizer": ((None,), "A model is served with the tokenizer in its directory."),
    "served_model_name": ((None,), "Clients ask for it by deployment_name."),
    "all_rank_output": ((True, False), ""),
    "sync_debug": ((False,), "Set PENSTOCK_LOG=DEBUG instead."),
    "profile_model_time": ((False,), "/metrics has the times instead."),
    "port_number": ((), "There is no gRPC here; restful_api_port is the HTTP port."),
    "torch_dist_port": ((), "Leave it out: processes talk through sockets without a port."),
    "zmq_port_number": ((), "Leave it out: processes talk through sockets without a port."),
    "hostfile": ((), "Deployments are on this machine."),
    "restful_processes": ((), "Leave it out: one process serves all clients."),
    "instance_type": ((), "Deployments are on this machine."),
    "version": ((), "Leave it out."),
}
"""Its others, with the values that ask for nothing, which pass; and what to do instead."""


def settings_from_mii(arguments: dict[str, Any]) -> dict[str, Any]:
    """Settings by our names, which may be given too.

    Raises `SettingsError` for what MII would do and we cannot.
    """
    settings: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in REFUSED:
            harmless, remedy = REFUSED[name]
            if value not in harmless:
                raise SettingsError(f"{name}={value!r} is not supported here.", remedy=remedy)
            continue
        ours = RENAMED.get(name, name)
        if ours in settings:
            raise SettingsError(f"{name} and {ours} are the same setting.")
        settings[ours] = value
    return settings
