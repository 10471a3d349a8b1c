"""The page's look: one palette in two themes, and the style sheet.

Figures are drawn in the light colours, each of which is then replaced by its CSS variable,
so one drawing serves both themes. Blue is the mixture of experts, vermilion its dense twin;
the pair stays apart for every common kind of colour blindness. Where expert counts are told
apart, 8 is that blue, fewer are greener and lighter, more are purple and darker.
"""

from __future__ import annotations

from collections.abc import Mapping

# name: (light, dark). No two light colours are equal: figures find the name by the colour.
PALETTE: Mapping[str, tuple[str, str]] = {
    "paper": ("#fefefe", "#14171b"),
    "panel": ("#f5f6f8", "#1c2126"),
    "ink": ("#1b2026", "#e7e9ec"),
    "soft": ("#56606b", "#a6afb9"),
    "mute": ("#8b95a0", "#78828d"),
    "rule": ("#d9dee3", "#343b43"),
    "band": ("#f2f4f7", "#1b2026"),
    "moe": ("#0a5fb4", "#6fb4f4"),
    "moe-soft": ("#a5c8e9", "#2f5a86"),
    "moe-tint": ("#e6f0fa", "#1a2b3d"),
    "dense": ("#b94f06", "#f2a063"),
    "dense-soft": ("#eec3a0", "#7d4a22"),
    "experts-2": ("#7cc8b4", "#4f9c8a"),
    "experts-4": ("#2f94ad", "#4bbad6"),
    "experts-16": ("#6a48b0", "#b39cf2"),
    "experts-32": ("#3f1d63", "#e3bdf7"),
    "good": ("#17734f", "#63cf9f"),
    "bad": ("#a8322a", "#f19186"),
    "heat-even": ("#f0f2f4", "#262c32"),
    "heat-more-1": ("#bcd6ee", "#29496a"),
    "heat-more-2": ("#629fd6", "#3d80bd"),
    "heat-more-3": ("#08488a", "#a3d2fb"),
    "heat-less-1": ("#f0e9d9", "#38352c"),
    "heat-less-2": ("#ddc9a0", "#5f5438"),
    "heat-less-3": ("#ad8a47", "#a58d57"),
}


def light(name: str) -> str:
    """Return the light colour called `name`, the one figures are drawn in."""
    return PALETTE[name][0]


def style_sheet() -> str:
    """Return the whole style sheet; it loads nothing."""
    bright = _variables(0)
    dim = _variables(1)
    themes = f":root{{{bright}}}\n@media (prefers-color-scheme:dark){{:root{{{dim}}}}}\n"
    return themes + _RULES


def _variables(theme: int) -> str:
    return "".join(f"--{name}:{colours[theme]};" for name, colours in PALETTE.items())


_RULES = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16.5px/1.6 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:break-word}
main{max-width:900px;margin:0 auto;padding:56px 20px 80px}
h1{font-size:clamp(1.75rem,1.2rem + 2.4vw,2.6rem);line-height:1.15;letter-spacing:-.018em;
margin:0 0 .6em;font-weight:700;text-wrap:balance}
h2{font-size:1.5rem;line-height:1.25;letter-spacing:-.01em;margin:0 0 .5em;font-weight:680;
text-wrap:balance}
h2 .n{color:var(--mute);font-weight:400;margin-right:.55em;font-variant-numeric:tabular-nums}
h3{font-size:1.02rem;margin:2em 0 .5em;font-weight:650}
p{margin:0 0 1em;max-width:44em}
sup{line-height:0}.nb{white-space:nowrap}
section{margin-top:72px}
.eyebrow{max-width:none;color:var(--soft);font-size:.84rem;letter-spacing:.02em;margin:0 0 1.1em}
.lede{font-size:clamp(1.08rem,1rem + .45vw,1.28rem);line-height:1.5;max-width:38em}
.soft,figcaption,.note{color:var(--soft)}
.note{font-size:.9rem}
.missing{color:var(--soft);font-style:italic}
.absent{border-left:3px solid var(--rule);padding:.3em 0 .3em .9em}
.moe{color:var(--moe)}.dense{color:var(--dense)}
b.moe,b.dense{font-weight:650}
.good{color:var(--good)}.bad{color:var(--bad)}
code,pre,.mono{font-family:ui-monospace,SFMono-Regular,"Cascadia Mono",Menlo,Consolas,
"Liberation Mono",monospace}
code{font-size:.9em;overflow-wrap:anywhere}
figure{margin:1.8em 0}
figcaption{font-size:.9rem;line-height:1.5;margin-top:.7em;max-width:46em}
figure svg{display:block;width:100%;height:auto}
figure svg text{font-family:inherit!important}
figure svg *{stroke-linejoin:round}
.narrow{display:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;
background:var(--rule);border:1px solid var(--rule);border-radius:10px;overflow:hidden;
margin:2em 0 0;padding:0}
.tiles div{background:var(--paper);padding:16px 18px 14px}
.tiles dt{font-size:.8rem;color:var(--soft);line-height:1.35}
.tiles dd{margin:0}
.tiles dd.v{font-size:1.42rem;white-space:nowrap;font-weight:660;letter-spacing:-.015em;
line-height:1.3;
font-variant-numeric:tabular-nums}
.tiles dd.v .missing{font-size:1rem;font-weight:400;letter-spacing:0}
.tiles dd.w{font-size:.8rem;color:var(--soft);line-height:1.35}
.funnel{list-style:none;margin:1.6em 0 0;padding:0}
.funnel li{display:grid;grid-template-columns:minmax(120px,36%) 1fr;gap:0 26px;min-height:64px}
.funnel .shape{position:relative}
.funnel svg{position:absolute;inset:0;width:100%;height:100%}
.funnel polygon{fill:var(--moe-tint)}
.funnel li.last polygon{fill:var(--moe)}
.funnel .left{position:absolute;top:6px;left:0;right:0;text-align:center;font-weight:660;
font-variant-numeric:tabular-nums}
.funnel .left span{background:var(--paper);border-radius:99px;padding:1px 9px;
border:1px solid var(--rule)}
.funnel .rule{border-top:1px solid var(--rule);padding:6px 0 14px;line-height:1.45}
.funnel .rule b{display:block;font-weight:640}
.funnel .rule span{color:var(--soft);font-size:.92rem}
.scroll{overflow-x:auto;margin:1.4em 0}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums;
line-height:1.4}
th,td{padding:7px 0 7px 14px;text-align:right;vertical-align:top;
border-bottom:1px solid var(--rule)}
tr>:first-child{text-align:left;padding-left:0;font-weight:400;color:var(--soft)}
thead th{font-weight:640;border-bottom:1.5px solid var(--mute)}
tr.group th{color:var(--ink);font-weight:640;padding-top:14px}
.narrowtable{max-width:640px}
.verdicts{list-style:none;padding:0;margin:1.2em 0}
.verdicts li{padding:.75em 0;border-top:1px solid var(--rule)}
.verdicts li:last-child{border-bottom:1px solid var(--rule)}
.verdicts .head{display:flex;flex-wrap:wrap;gap:0 .7em;align-items:baseline}
.verdicts .head b{font-weight:650}
.verdicts .deltas{font-size:.92rem;color:var(--soft);font-variant-numeric:tabular-nums}
.verdicts .deltas>span{white-space:nowrap;display:inline-block;margin-right:1.5em}
.verdict{border-left:3px solid var(--moe);padding:.15em 0 .15em 1em;margin:1.6em 0;
font-size:1.06rem;max-width:42em}
.keys{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:.85rem;color:var(--soft);margin:.9em 0 0;
padding:0;list-style:none}
.keys i{display:inline-block;width:12px;height:12px;border-radius:2px;margin-right:6px;
vertical-align:-1px}
.samples{display:grid;gap:18px;margin-top:1.4em}
.sample{border:1px solid var(--rule);border-radius:10px;overflow:hidden}
.sample h3{margin:0;padding:9px 16px;background:var(--panel);font-size:.82rem;font-weight:600;
color:var(--soft)}
.sample pre{margin:0;padding:14px 16px;white-space:pre-wrap;overflow-wrap:anywhere;
font-size:.84rem;line-height:1.55}
.sample mark{background:var(--moe-tint);color:var(--moe);border-radius:3px;padding:1px 0;
box-decoration-break:clone;-webkit-box-decoration-break:clone}
.bars td.bar{width:46%;padding-left:16px}
.bars td.bar div{height:10px;margin-top:6px;background:var(--moe-soft);border-radius:2px;
min-width:1px}
.bars tr.total th,.bars tr.total td{color:var(--ink);font-weight:640;border-bottom:0}
.command{background:var(--panel);border-radius:8px;padding:12px 16px;white-space:pre-wrap;
overflow-wrap:anywhere;font-size:.88rem;margin:1.2em 0}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:4px 22px;margin:1.2em 0;
font-size:.92rem}
.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
.warnings{border:1px solid var(--bad);border-left-width:4px;border-radius:8px;
padding:14px 18px 4px;margin-top:2em}
.warnings h2{font-size:1.05rem;margin:0 0 .4em}.warnings ul{margin:0 0 .8em;padding-left:1.2em}
footer{margin-top:72px;border-top:1px solid var(--rule);padding-top:14px;font-size:.86rem;
color:var(--soft)}
@media (max-width:719px){
body{font-size:16px}
main{padding:32px 16px 56px}section{margin-top:56px}
.wide{display:none}.narrow{display:block}
figure svg{max-width:460px;margin:0 auto}
.tiles{grid-template-columns:1fr 1fr}.tiles div{padding:12px 13px}
.tiles div:last-child:nth-child(odd){grid-column:1/-1}.tiles dd.v{font-size:1.28rem}
table{font-size:.82rem}th,td{padding-left:9px}
.funnel li{grid-template-columns:31% 1fr;gap:0 14px}
.stages{font-size:.77rem}.stages td,.stages thead th{padding-left:5px}
.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:8px}
.bars td.bar{width:30%}
}
@media print{section{break-inside:avoid}}
"""
