"""The style sheet of the report, for light and dark screens and for paper; it loads nothing."""

from ..show.markup import Markup

# The panel and notebooks use JupyterLab's variables, so these get values here.
CSS = Markup("""
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --muted: #59636e; --line: #d1d9e0; --soft: #f6f8fa;
  --link: #0550ae; --good: #1a7f37; --bad: #cf222e; --warn: #7d4e00; --good-soft: #e6f4ea; --bad-soft: #fdecec;
  --keyword: #8250df; --string: #0a3069; --comment: #59636e; --number: #0550ae;
  --jp-ui-font-color1: var(--ink); --jp-border-color2: var(--line); --jp-ui-font-family: inherit; }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --ink: #e6edf3; --muted: #a3adb8; --line: #3d444d;
  --soft: #161b22; --link: #79c0ff; --good: #56d364; --bad: #ff8b83; --warn: #e3b341; --good-soft: #12261a;
  --bad-soft: #30181a; --keyword: #d2a8ff; --string: #a5d6ff; --comment: #a3adb8; --number: #79c0ff; }
  img { filter: invert(1) hue-rotate(180deg); mix-blend-mode: lighten; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  "DejaVu Sans", sans-serif; }
a { color: var(--link); }
.skip { position: absolute; left: -9999px; }
.skip:focus { left: 16px; top: 8px; background: var(--paper); padding: 4px 12px; border: 2px solid var(--link);
  z-index: 2; }
header, main, footer, nav ul { max-width: 1080px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
header p { margin: 0; color: var(--muted); }
h1 { font-size: 26px; line-height: 1.25; margin: 2px 0 16px; }
h2 { font-size: 20px; margin: 44px 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--line); }
h3 { font-size: 16px; margin: 26px 0 8px; }
p { margin: 8px 0; }
.verdict { display: flex; gap: 18px; align-items: center; padding: 16px 22px; border-radius: 10px; border: 1px solid;
  margin-bottom: 22px; }
.verdict b { display: block; font-size: 19px; }
.verdict .shape { font-size: 24px; line-height: 44px; width: 44px; height: 44px; flex: none; border-radius: 50%;
  border: 2px solid; text-align: center; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.verdict.good { background: var(--good-soft); } .verdict.bad { background: var(--bad-soft); }
.verdict div div { color: var(--ink); }
nav { position: sticky; top: 0; background: var(--paper); border-bottom: 1px solid var(--line); z-index: 1; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding-top: 9px; padding-bottom: 9px; }
nav a { text-decoration: none; font-size: 14px; }
nav a:hover { text-decoration: underline; }
section { scroll-margin-top: 48px; }
section section { scroll-margin-top: 56px; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: 12px; margin: 0; }
.figures > div { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; min-width: 0; }
.figures dt { color: var(--muted); font-size: 13px; }
.figures dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.figures dd:first-of-type { font-size: 18px; font-weight: 600; }
.figures dd.long { font-size: 15px; }
.figures dd + dd { color: var(--muted); font-size: 13px; }
.missing { color: var(--muted); font-style: italic; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
table.data { width: 100%; font-size: 14px; }
table.data caption { text-align: left; color: var(--muted); padding-bottom: 4px; }
table.data th, table.data td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0; font-weight: normal;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
table.data td { min-width: 4em; }
table.data thead th { color: var(--muted); font-size: 13px; }
table.data tbody th { font-weight: 600; }
table.fixed { table-layout: fixed; min-width: 760px; }
table.fixed th:nth-child(1) { width: 22%; } table.fixed th:nth-child(2) { width: 10%; }
table.fixed th:nth-child(3) { width: 10%; }
table.data .mark { white-space: nowrap; }
pre.copy { margin: 4px 0; white-space: pre-wrap; overflow-wrap: anywhere; user-select: all; }
@media screen and (max-width: 720px) {
  .scroll th, .scroll td { white-space: normal !important; min-width: 0 !important; }
  table.data thead { position: absolute; left: -9999px; }
  table.data, table.data tbody, table.data tr, table.data th, table.data td { display: block; width: auto; }
  table.fixed { min-width: 0; } table.fixed th:nth-child(n) { width: auto; }
  table.data tr { padding: 6px 0; border-bottom: 1px solid var(--line); }
  table.data tbody th, table.data td { border: 0; padding: 1px 0; }
  table.data td { position: relative; padding-left: 8.5em; min-height: 1.6em; }
  table.data td:empty { display: none; }
  table.data td::before { content: attr(data-head); position: absolute; left: 0; width: 8em; color: var(--muted);
    font-size: 13px; }
  table.data td:only-of-type { padding-left: 0; } table.data td:only-of-type::before { content: none; } }
code, pre, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 13px; }
.mono { overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: 8px; margin: 8px 0; }
summary { cursor: pointer; padding: 7px 14px; }
details > div { padding: 2px 14px 12px; }
.words { white-space: pre-wrap; overflow-wrap: anywhere; display: block; min-width: 9em; }
figure { margin: 18px 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--muted); font-size: 13px; margin-top: 6px; max-width: 900px; }
.pair { display: flex; flex-wrap: wrap; gap: 0 28px; }
.pair figure { flex: 1 1 440px; min-width: 0; }
.notebook { overflow-x: auto; }
.notebook .prompt { display: none; }
.notebook .input_area { background: var(--soft); border-radius: 6px; padding: 8px 14px; margin: 12px 0 6px;
  overflow-x: auto; }
.notebook pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.notebook .output_subarea { margin: 6px 0; overflow-x: auto; }
.notebook .output_error pre, .notebook .output_stderr pre { color: var(--bad); }
.notebook h1 { font-size: 19px; margin: 18px 0 6px; }
.notebook h2, .notebook h3, .notebook h4 { font-size: 16px; margin: 18px 0 4px; border: 0; padding: 0; }
.notebook th, .notebook td { text-align: left; vertical-align: top; padding: 2px 12px 2px 0; }
.notebook .k, .notebook .kn, .notebook .kc, .notebook .ow { color: var(--keyword); }
.notebook .s1, .notebook .s2, .notebook .sa, .notebook .sd, .notebook .si { color: var(--string); }
.notebook .c1 { color: var(--comment); } .notebook .mi, .notebook .mf { color: var(--number); }
footer { margin-top: 56px; padding-top: 14px; padding-bottom: 36px; border-top: 1px solid var(--line);
  color: var(--muted); font-size: 13px; }
@page { size: A4; margin: 14mm 13mm 16mm;
  @bottom-right { content: counter(page) " / " counter(pages); font-size: 9px; } }
@media print { nav, .skip, #notebooks { display: none; } body { font-size: 10px; line-height: 1.4; }
  :root { --paper: #ffffff; --ink: #1f2328; --muted: #59636e; --line: #d1d9e0; --soft: #f6f8fa; --good: #1a7f37;
    --bad: #cf222e; --warn: #7d4e00; --good-soft: #e6f4ea; --bad-soft: #fdecec; }
  header, main, footer { max-width: none; padding: 0; } header { padding-top: 0; }
  h1 { font-size: 18px; } h2 { font-size: 14px; margin: 18px 0 6px; } h3 { font-size: 12px; margin: 10px 0 4px; }
  .scroll { overflow: visible; } .scroll th, .scroll td { white-space: normal !important; }
  table.fixed { min-width: 0; } table.data { font-size: 9px; }
  table.data th, table.data td { padding: 2px 8px 2px 0; } table.data td { min-width: 0; } .words { min-width: 0; }
  table.data thead th, code, pre, .mono, .figures dt, .figures dd + dd, figcaption { font-size: 9px; }
  .figures { grid-template-columns: repeat(4, 1fr); gap: 6px; } .figures > div { padding: 5px 8px; }
  .figures dd:first-of-type { font-size: 12px; } .figures dd.long { font-size: 10px; }
  figure { margin: 8px 0; } figure img { max-height: 90mm; } .verdict { padding: 8px 14px; margin-bottom: 10px; }
  details { border: 0; margin: 2px 0; } summary { padding: 2px 0; list-style: none; } details > div { padding: 0; }
  details::details-content { content-visibility: visible; display: block; }
  #attention details { display: none; } pre.copy { column-count: 3; font-size: 7px; line-height: 1.3; }
  figure, tr, .figures > div, .verdict { break-inside: avoid; } h2, h3, summary { break-after: avoid; }
  * { print-color-adjust: exact; } }
""")
