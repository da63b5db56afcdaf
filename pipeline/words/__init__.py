"""Words as datatrove's English filters count them: spaCy's, cut by kernels over the bytes of many texts at a time.

`kernels` cuts; `tables` says what each character is, `lexicon` and `special` which words have rules of their own,
`addresses` finds URLs, `mending` puts right what cutting by bytes gets wrong, and `reference` is the plain rule.
"""
