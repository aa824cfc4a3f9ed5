"""Names in lists that are not models of the Ollama yet: ``* [QUEUED] llama3.2:latest``, and how they are read again."""

from mirror.fill import Tags
from mirror.proxy.bodies import Refused
from mirror.values import InvalidModelName, ModelName

QUEUED, STORED = "* [QUEUED] ", "* [STORED] "


def unmarked(text: str) -> str:
    """Return a name as it is without its mark, for clients send back what they were listed."""
    return text.removeprefix(QUEUED).removeprefix(STORED)


def named(text: str, tags: Tags, host: str, wrong: str) -> ModelName:
    """Return the model that a client means, under the name by which it is filed. Raises Refused 400, saying ``wrong``.

    ``host`` is that of names which say none.
    """
    try:
        return tags.filed(ModelName.parse(unmarked(text), host=host))
    except InvalidModelName as error:
        raise Refused(400, wrong) from error
