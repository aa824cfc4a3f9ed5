"""How Ollama writes an error, by the face it answers on: its own, OpenAI's or Anthropic's (docs/protocol.md §6)."""

_OPENAI = {
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def error_body(path: str, status: int, said: str) -> dict[str, object] | None:
    """Return the JSON body of an error on ``path``; None where the path is of none of Ollama's faces.

    ``said`` is a sentence for a person (openai/openai.go, NewError; anthropic/anthropic.go, NewError).
    """
    if path.startswith("/api/"):
        return {"error": said}
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        kind = _ANTHROPIC.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": said}}
    if path.startswith("/v1/"):
        kind = _OPENAI.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"error": {"message": said, "type": kind, "param": None, "code": None}}
    return None
