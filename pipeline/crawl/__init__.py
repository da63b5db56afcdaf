"""Where snapshots come from: a polite crawl or given files, spooled as WARC records and then sealed.

`frontier` decides what to ask for and `crawler` asks, in a process of its own that `launch` starts. `fetch` is one
request, bounded by `addresses` and `unpack`; `hosts` and `politeness` are the turn-taking; `robots`, `site` and
`permissions` say what owners allow, `answers` what an answer says, `earlier` what is known already. `given` reads
files. `spool` keeps what came so that a killed crawl loses nothing, and `seal` sorts it into a snapshot.
"""
