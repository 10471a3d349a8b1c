"""What the verbs that read stdin say of it."""

from __future__ import annotations

from mobilemoe.errors import MobileMoEError


def not_utf8(error: UnicodeDecodeError) -> MobileMoEError:
    """Return the error to raise for bytes on stdin that are no text."""
    return MobileMoEError(f"stdin is not UTF-8: {error}", hint="convert it, with iconv for example")
