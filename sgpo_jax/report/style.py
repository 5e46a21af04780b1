"""The look of a report's HTML page, on light and dark screens, wide and narrow."""

STYLE = """
:root { --text: #1f2328; --quiet: #57606a; --page: #fff; --line: #d8dee4;
  --card: #f6f8fa; --right: #1a7f37; --wrong: #bc4c00; --link: #0969da; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --quiet: #9ea7b3;
  --page: #0d1117; --line: #30363d; --card: #161b22; --right: #57c98a;
  --wrong: #f0883e; --link: #6cb6ff; } }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem;
  border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .92rem; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
p { max-width: 46rem; } code { background: var(--card); border-radius: 4px;
  padding: .1em .3em; font-size: .88em; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: .86rem; }
figure { margin: 1.2rem 0; max-width: 46rem; }
figure img { max-width: 100%; height: auto;
  background: #fff; border-radius: 6px; }
.table { overflow-x: auto; margin: 0 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
.title { font-weight: 600; margin: 1.4rem 0 .3rem; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th.words, td.words { text-align: left; }
td.long { white-space: normal; min-width: 14rem; }
th { white-space: normal; vertical-align: bottom; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; }
h3 small { color: var(--quiet); font-weight: 400; margin-left: .4rem; }
.cards { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.sample { background: var(--card); border-radius: 8px; padding: .7rem .9rem;
  min-width: 0; }
.sample pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0;
  font-size: .86rem; max-height: 16rem; overflow-y: auto; }
.sample dl { display: grid; grid-template-columns: max-content max-content 1fr;
  gap: .2rem .8rem; margin: .5rem 0 0; align-items: baseline; }
.sample dt { color: var(--quiet); font-size: .88rem; }
.sample dd { margin: 0; min-width: 0; }
.sample .right, .sample .wrong { font-weight: 700; font-size: .8rem; }
.sample .right { color: var(--right); } .sample .wrong { color: var(--wrong); }
@media (max-width: 40rem) { figure { overflow-x: auto; }
  figure img { max-width: none; width: 30rem; } main { padding: .5rem .9rem 3rem; }
  th, td { padding: .3rem .45rem; } td.words { white-space: normal; min-width: 6rem; }
  td.long { min-width: 11rem; } }
@media print { nav { display: none; } h2 { break-after: avoid; } }
"""
