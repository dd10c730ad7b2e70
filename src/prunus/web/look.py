"""How the page looks: the system's fonts, tight controls, large pictures. In light and in dark all
colours are those of Gradio's theme."""

from __future__ import annotations

from typing import Any

CSS = """
.gradio-container { --layout-gap: 6px; max-width: 1500px !important; }
.gradio-container .main { padding: 6px 10px !important; }
.gradio-container .html-container { padding: 2px !important; }
.gradio-container main { max-width: 1500px !important; padding: 0 !important; }
#head { line-height: 1.3; }
#head b { font-size: 1.25em; }
#head span, .said .same, .setting, .note, .hint, table.numbers small { opacity: .72; }
#samples { background: none; border: none !important; outline: none !important; min-height: 0;
  overflow: hidden; }
#samples .grid-wrap { min-height: 0; max-height: none; height: auto; padding: 2px 0; }
#samples .grid-container { display: flex; overflow-x: auto; gap: 4px; margin: 0; }
#samples .gallery-item { flex: none; width: 56px; }
#samples .thumbnail-item { width: 56px; height: 56px; }
#files { align-self: center; }
#asking { align-items: center; }
#view { padding: 0; }
#view label { padding: 3px 8px; font-size: 12px; }
#view .wrap { gap: 4px; }
#live { width: auto; flex: none; border: none !important; background: none; padding: 0 6px; }
#asking button { padding: 5px 10px; }
#files { padding: 5px 10px; }
.more { padding: 0 !important; }
.more > button { padding: 2px 12px; font-size: .85em; }
.shot img { image-rendering: pixelated; max-height: 62vh; object-fit: contain; }
.strip, .strip .grid-wrap { min-height: 0 !important; max-height: none; height: auto !important; }
.strip .caption-label { white-space: normal; max-width: 100%; font-size: 11px; }
.said .answer { font-size: 1.5em; margin-right: .6em; }
.said .other { color: var(--body-text-color); background: #f5a62333; padding: 1px 6px;
  border-radius: 4px; }
.setting { font-family: var(--font-mono); font-size: .85em; overflow-wrap: anywhere; }
.note, .hint { font-size: .85em; overflow-wrap: anywhere; }
.chart { display: block; width: 100%; max-width: 620px; margin-top: 4px; }
.refusal { border-left: 4px solid #d9822b; background: #d9822b22; color: var(--body-text-color);
  padding: 8px 12px; border-radius: 4px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table.numbers { border: none !important; border-collapse: collapse; width: 100%;
  font-variant-numeric: tabular-nums; }
table.numbers :is(thead, tbody, tr) { border: none !important; }
table.numbers th, table.numbers td { padding: 3px 10px; text-align: right; white-space: nowrap;
  border: none !important; border-bottom: 1px solid var(--border-color-primary) !important;
  color: var(--body-text-color); }
table.numbers th:first-child { text-align: left; font-weight: 400; }
footer { display: none !important; }
@media (max-width: 640px) {
  .gradio-container { padding: 4px 6px !important; }
  .shot img { max-height: none; }
  table.numbers th, table.numbers td { padding: 3px 4px; font-size: 12px; white-space: normal; }
  table.numbers small { display: block; }
  .said .setting { display: block; }
}
"""


def theme() -> Any:
    """Gradio's default in fewer pixels, with fonts that every system has: none is fetched."""
    import gradio

    return gradio.themes.Default(
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        text_size="sm",
        spacing_size="sm",
        primary_hue="blue",
    )
