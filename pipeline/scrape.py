"""Scrape: every source becomes a sealed snapshot, whether it is a crawl of the web or files that were given.

A snapshot is made once and never rewritten, but by a purge.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import BadInput
from pipeline.sources import MIB, CrawlSource, FileSource, given_files, hosts_of, private_hosts_of, seeds_of, source_id

if TYPE_CHECKING:
    from pipeline.crawl.given import Each

USER_AGENT = "gptmill/0.1"
PYDOC = "pydoc"
NOTHING_PURGED: Mapping[str, list[str]] = {"url": [], "host": []}

Progress = Callable[[int, int, str], None]


def scrape(
    source: CrawlSource | FileSource,
    out: Path,
    work: Path,
    segment_bytes: int = 32 * MIB,
    progress: Progress = lambda _done, _total, _unit: None,
    earlier: Sequence[Path] = (),
    purged: Mapping[str, list[str]] = NOTHING_PURGED,
    each: "Each" = starmap,
) -> dict[str, Any]:
    """Make a sealed snapshot of `source` in the empty folder `out`; see `pipeline.crawl.seal` for its files.

    `earlier` are the folders of the source's sealed snapshots, oldest first: a page that they hold is asked for
    conditionally, and stored only where it changed. What `purged` names, by `url` and by `host`, is not asked for.
    `work` keeps what was fetched: a killed crawl continues from there, and ends with the same URLs, statuses and
    payloads as an undisturbed one. Remove it once the snapshot is published, or the next crawl will find its old
    answers.

    Given files are read by `each`, in several processes perhaps.

    Returns counts: rows (records stored), pages (stored or unchanged), bytes, urls, parts, outcomes, statuses, hosts
    (outcomes of the largest), unreached (URLs met that the budget left out), superseded (older captures of a given
    URL). Raises BadInput where no page came.
    """
    from pipeline.crawl.seal import seal
    from pipeline.crawl.spool import Spool

    work.mkdir(parents=True, exist_ok=True)
    if isinstance(source, FileSource):
        from pipeline.crawl.given import read_files

        with read_files(work, source.name, given_files(source), source, progress, each) as spools:
            _require_pages(source, spools, work)
            return seal(spools, out, source.name, segment_bytes) | {"superseded": spools.superseded}
    last = _crawl(source, work, progress, earlier, purged)
    with Spool(work) as spool:
        _require_pages(source, spool, work, refresh=bool(earlier))
        return seal(spool, out, source.name, segment_bytes) | {"unreached": last.get("unreached", 0)}


def _crawl(
    source: CrawlSource, work: Path, progress: Progress, earlier: Sequence[Path], purged: Mapping[str, list[str]]
) -> dict[str, Any]:
    """Fill the spool in `work`, serving what is to be served meanwhile."""
    from pipeline.crawl.launch import render_pydoc, run_crawler
    from pipeline.crawl.serve import serve, served_hosts
    from pipeline.crawl.spool import Spool

    seeds, hosts = seeds_of(source), hosts_of(source)
    _forget_other(work, source_id(source, {}), Spool.remove)
    folders = [render_pydoc(work, progress) if folder == PYDOC else Path(folder) for folder in source.serve]
    served = served_hosts(folders)
    agent = USER_AGENT + (f" (+{' '.join(source.contact.split())})" if source.contact else "")
    scope = {"hosts": hosts, "paths": source.paths, "include": source.include, "exclude": source.exclude}
    with serve(served) if served else nullcontext("") as proxy:
        job = {
            "seeds": seeds,
            "scope": scope,
            "named_hosts": sorted(private_hosts_of(source, seeds, hosts)),
            "limits": {
                "max_pages": source.max_pages,
                "max_depth": source.max_depth,
                "max_bytes": source.max_bytes,
                "max_body_bytes": source.max_body_bytes,
            },
            "max_seconds": None if source.max_minutes is None else source.max_minutes * 60,
            "sitemaps": source.sitemaps,
            "ignore_signals": source.ignore_signals,
            "delay_s": source.delay_s,
            "concurrency_per_host": source.concurrency_per_host,
            "autothrottle": source.autothrottle,
            "max_wait_s": source.max_wait_s,
            "timeout_s": source.timeout_s,
            "user_agent": agent,
            "proxies": dict.fromkeys(sorted(served), proxy),
            "earlier": [str(folder) for folder in earlier],
            "purged": dict(purged),
            "spool": str(work),
        }
        return run_crawler(job, work, progress)


def _forget_other(work: Path, identifier: str, forget: Callable[[Path], None]) -> None:
    """A spool continues only the source that it was begun for."""
    marker = work / "source"
    if not marker.exists() or marker.read_text() != identifier:
        forget(work)
        marker.write_text(identifier)


def _require_pages(source: CrawlSource | FileSource, spool: Any, work: Path, *, refresh: bool = False) -> None:
    """A snapshot without a page is refused, and what led to it forgotten, so that the next run asks again.

    A refresh that found no page is one all the same where the site said so: all is gone, or forbidden now.
    """
    from pipeline.crawl.spool import ABOUT_SITE, REVISIT, STORED, Spool
    from pipeline.versions import WITHDRAWING_OUTCOMES

    outcomes: dict[str, int] = {}
    causes: list[str] = []
    answered = 0
    for row in spool.rows():
        if row["outcome"] in ABOUT_SITE:
            continue
        outcomes[row["outcome"]] = outcomes.get(row["outcome"], 0) + 1
        if row["detail"]:
            causes.append(f"{row['url']} ({row['detail']})")
        answered += row["status"] != 0 or row["outcome"] in WITHDRAWING_OUTCOMES
    if outcomes.get(STORED) or outcomes.get(REVISIT) or (refresh and answered):
        return
    spool.close()
    Spool.remove(work)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "nothing there"
    if isinstance(source, FileSource):
        raise BadInput(f"source {source.name!r}: the given files hold no page or text ({counted}).")
    first = f": {causes[0]}" + (f" and {len(causes) - 1:,} more" if len(causes) > 1 else "") if causes else ""
    if causes and not answered:
        raise BadInput(f"source {source.name!r}: no seed could be fetched{first}.")
    raise BadInput(
        f"source {source.name!r}: the crawl stored no page ({counted}{first}); check seeds, hosts and robots.txt."
    )
