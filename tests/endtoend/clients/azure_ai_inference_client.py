"""Run with Azure's client of its model inference API. Arguments: URL, key. Prints what it found."""

import json
import sys

from azure.ai.inference import ChatCompletionsClient
from azure.ai.inference.models import UserMessage
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError

MESSAGES = [UserMessage(content="Say hello.")]


def main() -> None:
    """Ask in every way that the client knows, and tell the answers as JSON."""
    url, key = sys.argv[1:]
    with ChatCompletionsClient(endpoint=url, credential=AzureKeyCredential(key)) as client:
        info = client.get_model_info()
        options = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0.0}
        whole = client.complete(**options)
        updates = client.complete(**options, stream=True)
        pieces = [update.choices[0].delta.content or "" for update in updates if update.choices]
        extra = client.complete(**options, model_extras={"top_k": 5})
        try:
            client.complete(messages=MESSAGES, top_p=7.0)
        except HttpResponseError as error:
            refusal = error.status_code
    print(
        json.dumps(
            {
                "model_type": info.model_type,
                "provider": info.model_provider_name,
                "text": whole.choices[0].message.content,
                "streamed": "".join(pieces),
                "with_extra": extra.choices[0].message.content,
                "num_tokens": whole.usage.completion_tokens,
                "refusal": refusal,
            }
        )
    )


main()
