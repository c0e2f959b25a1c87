"""/docs: the OpenAPI document as one plain page. Nothing on it is loaded from anywhere, and it needs no script."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Every call with its fields, examples and errors, rendered from /openapi.json."""
    return HTMLResponse(render(request.app.openapi()))


def render(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info = document["info"]
    calls = [_call(document, method, path, call) for path, item in document["paths"].items() for method, call in item.items()]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(info['title'])} API</title></head><body><main>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}: HTTP API</h1>"
        f"<p>{escape(info.get('description', ''))}</p>"
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a>. <a href="/">To the page.</a></p>'
        f"{''.join(calls)}</main></body></html>"
    )


def _call(document: dict[str, Any], method: str, path: str, call: dict[str, Any]) -> str:
    parts = [
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p>{escape(call.get('summary', ''))}. {escape(call.get('description', ''))}</p>",
    ]
    for parameter in call.get("parameters", []):
        need = "required" if parameter.get("required") else "optional"
        about = escape(parameter.get("description", ""))
        parts.append(f"<p><code>{escape(parameter['name'])}</code> ({parameter['in']}, {need}) {about}</p>")
    if "requestBody" in call:
        parts.append("<h3>Body</h3>" + _content(document, call["requestBody"]["content"]))
    for status, response in call["responses"].items():
        title = f"{escape(str(status))} {escape(response.get('description', ''))}"
        parts.append(f"<details><summary>{title}</summary>{_content(document, response.get('content', {}))}</details>")
    return "".join(parts) + "</section>"


def _content(document: dict[str, Any], content: dict[str, Any]) -> str:
    parts = []
    for media_type, described in content.items():
        schema = _resolved(document, described.get("schema", {}))
        parts.append(f"<h4><code>{escape(media_type)}</code></h4>{_fields(document, schema)}")
        shown = [described["example"]] if "example" in described else schema.get("examples", [])
        parts.extend(f"<pre>{escape(_text(example))}</pre>" for example in shown)
    return "".join(parts)


def _fields(document: dict[str, Any], schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = []
    for name, field in schema.get("properties", {}).items():
        about = field.get("description") or _resolved(document, field).get("description", "")
        need = "required" if name in required else f"default {json.dumps(field.get('default'))}"
        rows.append(f"<dt><code>{escape(name)}</code> ({escape(need)})</dt><dd>{escape(about)}</dd>")
    return f"<dl>{''.join(rows)}</dl>" if rows else ""


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    return found


def _text(example: object) -> str:
    return example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
