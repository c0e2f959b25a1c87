"""E-mails: the headers a reader sees, then the message. Uses the standard library's parser."""

from __future__ import annotations

import datetime
from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesParser

from corpus.errors import DocumentError
from ingest.readers.extract import Extract, as_title, clean, one_line, sections_of, title_from_name
from ingest.readers.html import extract_html
from ingest.readers.text import decode

# What the standard library lets through for headers and parts that do not follow the standards.
_MALFORMED = (MessageError, LookupError, ValueError, TypeError, AttributeError, RecursionError, AssertionError)


def read_eml(name: str, data: bytes) -> Extract:
    """Subject, sender, receivers and date at the top, then the plain text part, else the HTML part.

    Attachments are named and not read.
    """
    try:
        message = BytesParser(policy=policy.default).parsebytes(data)
        headers = {header: _header(message, header) for header in ("Subject", "From", "To", "Cc", "Date")}
        if not any(headers.values()):
            raise DocumentError(name, "it has none of an e-mail's headers", "export the message again as .eml")
        body = _body(name, message)
        attachments = _attachments(message)
    except _MALFORMED as error:
        raise DocumentError(name, f"the e-mail is malformed ({type(error).__name__})", "export it again") from error
    if attachments:
        headers["Attachments"] = ", ".join(attachments)
    top = "\n".join(f"{header}: {value}" for header, value in headers.items() if value)
    text = clean(f"{top}\n\n{body}").strip()
    metadata = {
        "sender": headers["From"],
        "recipients": headers["To"],
        "date": headers["Date"],
        "attachments": ", ".join(attachments),
    }
    return Extract(
        title=as_title(headers["Subject"]) or title_from_name(name),
        text=text,
        sections=sections_of((), len(text)),
        metadata={key: value for key, value in metadata.items() if value},
    )


def _header(message: EmailMessage, header: str) -> str:
    """A header decoded; a malformed one is left out, the message is still worth reading."""
    try:
        value = message[header]
        moment = getattr(value, "datetime", None)
        if header == "Date" and isinstance(moment, datetime.datetime):
            return moment.isoformat(sep=" ")
        return one_line(str(value)) if value is not None else ""
    except _MALFORMED:
        return ""


def _body(name: str, message: EmailMessage) -> str:
    for kind in ("plain", "html"):
        part = message.get_body(preferencelist=(kind,))
        text = _part_text(name, part) if isinstance(part, EmailMessage) else ""
        if text and kind == "html":
            text = extract_html(name, text).text
        if text.strip():
            return text.strip()
    return ""


def _part_text(name: str, part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not payload:
        return ""
    return decode(name, payload, part.get_content_charset())


def _attachments(message: EmailMessage) -> list[str]:
    return [one_line(part.get_filename() or part.get_content_type()) for part in message.iter_attachments()]
