"""What a client connects to, and as whom."""

import ipaddress


def on_this_machine(host: str) -> bool:
    """Whether this name or address belongs to the loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def invalid_token(token: str) -> str | None:
    """Why this cannot be a token, without repeating it; None if it can, white space around it aside."""
    token = token.strip()
    if token and token.isascii() and token.isprintable():
        return None
    wrong = "has characters that no token has" if token else "is empty"
    return f"the token {wrong}: `lamanas token` prints the admin token, `lamanas keys make` creates others"
