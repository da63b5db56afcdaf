"""From an archive's records to texts: `archive` reads records, `page` makes a page a text, `isolation` keeps it apart.

`charset` decodes, `main_content` finds what a page is about in the `blocks` of its markup without its `furniture`.
"""
