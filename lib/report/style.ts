/** The report's style sheet. Colours are Okabe and Ito's, which readers with any colour vision tell apart. */
export const STYLE = `
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5b6675;--line:#dde2e9;--track:#edf0f4;
--audio:#d55e00;--visual:#0072b2;--fusion:#009e73;--ensemble:#7b4fa3;--span:#f0c94066;--good:#00785a;--bad:#b23c00}
@media(prefers-color-scheme:dark){:root{--page:#12161c;--card:#1b2129;--ink:#e8ecf2;--soft:#9aa6b5;--line:#323b47;--track:#29313b;
--audio:#f08a3c;--visual:#56b4e9;--fusion:#2cc59a;--ensemble:#c29be6;--span:#f0c94044;--good:#4fd3ab;--bad:#ff9a66}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
main,header,footer{max-width:1240px;margin:0 auto;padding:0 20px}
header{padding-top:36px}h1{font-size:28px;line-height:1.2;margin:0 0 6px}h2{font-size:20px;margin:40px 0 4px}h3{font-size:15px;margin:0 0 8px}
p{margin:4px 0 12px;max-width:75ch}.lead,.hint{color:var(--soft)}.hint{font-size:13.5px}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:14px;margin-top:10px}a{color:var(--visual)}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(158px,1fr));gap:12px;margin:20px 0 0}
.tile b{display:block;font-size:26px;line-height:1.2;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:13px;display:block}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:14px}
.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,282px),1fr))}.under{margin:8px 2px 0}.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,540px),1fr));gap:14px}
.scroll{overflow-x:auto;max-width:100%}.gap{margin-top:14px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);font-size:13px;padding-bottom:6px}
.scores th,.scores td{padding:7px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
.scores tr:last-child>*{border-bottom:0}
.scores th:first-child{text-align:left}.scores thead th{font-size:13px;color:var(--soft);font-weight:600;vertical-align:bottom}
.scores small{display:block;font-weight:400;color:var(--soft);font-size:11.5px;line-height:1.2}.best{font-weight:700}
.bars{display:grid;grid-template-columns:minmax(84px,auto) 1fr auto;gap:2px 12px;align-items:center}
.bars>.name{font-weight:600;font-size:14px}.bars>.value{font-size:14px;text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.value small{color:var(--soft);font-size:12px}
svg{display:block;width:100%}svg.bar{height:24px}.bar .track{fill:var(--track)}
rect.audio{fill:var(--audio)}rect.visual{fill:var(--visual)}rect.fusion{fill:var(--fusion)}rect.ensemble{fill:var(--ensemble)}rect.plain{fill:var(--soft)}
.whisker,.ceiling,.line,.even,.axis,.true,.predicted{fill:none;vector-effect:non-scaling-stroke}
.whisker{stroke:var(--ink);stroke-width:1.4}.ceiling{stroke:var(--ink);stroke-width:2;stroke-dasharray:4 3}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;color:var(--soft);font-size:13px;margin:10px 0 0;padding:0;list-style:none}
.legend i{display:inline-block;width:18px;height:0;border-top:2.5px solid;vertical-align:middle;margin-right:6px}
.legend i.box{height:11px;border:0;border-radius:2px}.legend i.dashed{border-top-style:dashed}
.i-audio{color:var(--audio)}.i-visual{color:var(--visual)}.i-fusion{color:var(--fusion)}.i-ensemble{color:var(--ensemble)}.i-ink{color:var(--ink)}
.b-audio{background:var(--audio)}.b-visual{background:var(--visual)}.b-fusion{background:var(--fusion)}.b-ensemble{background:var(--ensemble)}.b-span{background:var(--span)}
.confusion{table-layout:fixed;font-size:12.5px}.confusion th{font-weight:600;color:var(--soft);padding:3px 2px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.confusion th[scope=row]{text-align:right;padding-right:8px}.confusion td{text-align:center;padding:0;height:34px;border:2px solid var(--card);border-radius:4px}
.confusion thead th{font-size:11px;padding:3px 0;text-overflow:clip;text-align:center}.confusion thead td{width:74px;height:auto;border:0}.confusion td.right{font-weight:700}abbr{text-decoration:none}
.gridline{stroke:var(--line);fill:none}.plot text.tick{fill:var(--soft);font-size:11px}
.line{stroke-width:2;stroke-linejoin:round}.line.audio{stroke:var(--audio)}.line.visual{stroke:var(--visual)}.line.fusion{stroke:var(--fusion)}.line.ensemble{stroke:var(--ensemble)}.line.plain{stroke:var(--soft)}
.mark{stroke:var(--card);stroke-width:1.5}.mark.audio{fill:var(--audio)}.mark.visual{fill:var(--visual)}.mark.fusion{fill:var(--fusion)}.mark.ensemble{fill:var(--ensemble)}.mark.plain{fill:var(--soft)}
.dash1{stroke-dasharray:6 3}.dash2{stroke-dasharray:2 3}.dash3{stroke-dasharray:8 3 2 3}.dash4{stroke-dasharray:1 4}
.plot .line{stroke-width:1.6}
.clip h3{display:flex;flex-wrap:wrap;gap:2px 10px;justify-content:space-between}.clip h3 span{font-weight:400;color:var(--soft);font-size:13px}
.verdict{display:flex;flex-wrap:wrap;gap:2px 14px;margin:0 0 10px;font-size:14px}.ok{color:var(--good);font-weight:700}.no{color:var(--bad);font-weight:700}
.faces{position:relative;line-height:0}.faces img{width:100%;height:auto;display:block;border-radius:4px 4px 0 0}
.ribbon{position:relative;height:7px;background:var(--track)}.ribbon i{position:absolute;top:0;bottom:0;background:#e0ac00}
svg.attention{height:96px;background:var(--track);border-radius:0 0 4px 4px}.span{fill:var(--span)}
.area{opacity:.18}.area.audio{fill:var(--audio)}.area.visual{fill:var(--visual)}.area.plain{fill:var(--soft)}
.even{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
.times{display:flex;justify-content:space-between;color:var(--soft);font-size:12px}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:6px 22px;margin-top:10px}
.pair .bars{grid-template-columns:minmax(58px,auto) 1fr auto;gap:0 8px}.pair .bars>*{font-size:12.5px;font-weight:400}.pair svg.bar{height:14px}
svg.valence{height:20px}.axis{stroke:var(--line);stroke-width:1.5}.true{stroke:var(--ink);stroke-width:2;stroke-dasharray:4 2}.predicted{stroke:var(--ensemble);stroke-width:4}
dl{display:grid;grid-template-columns:minmax(120px,max-content) 1fr;gap:4px 18px;margin:0;font-size:14px}dt{color:var(--soft)}dd{margin:0}
footer{padding:28px 20px 48px;color:var(--soft);font-size:13px}
@media(max-width:640px){main,header,footer{padding-left:14px;padding-right:14px}h1{font-size:23px}.card{padding:12px}.pair{grid-template-columns:1fr}
.bars{gap:2px 8px;grid-template-columns:minmax(70px,auto) 1fr auto}.value small{display:block;line-height:1.1}.scores{font-size:13px}.scores th,.scores td{padding:5px 7px}.scores small{font-size:10.5px}.scores th:first-child{position:sticky;left:0;background:var(--card);padding-left:0}.tile b{font-size:22px}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}}
@media print{body{background:#fff}.card{break-inside:avoid}}
`;
