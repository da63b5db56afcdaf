"""Where snapshots come from: a polite crawl or given files, spooled as WARC records and then sealed.

`frontier` decides what to ask for, `spider` asks (in a process of its own, started by `launch`), `given` reads files,
`spool` keeps what came so that a killed crawl loses nothing, and `seal` sorts it into a snapshot.
"""
