"""From an archive's records to texts: `archive` reads records, `page` makes a page a text, `isolation` keeps it apart.

`charset` decodes, `main_content` finds what a page is about in the `blocks` of its markup without its `furniture`.
What cuts markup into blocks is `block_kernels`, with `markup_kernels` and `text_kernels` below, or `block_reference`.
"""
