"""Why an edit generalises or does not: D and R, conflict, key similarity, certificate, landscape.

`diagnosis.diagnose` puts them together; each file holds one of them, as pure functions where it
can. Nothing here changes the model, and nothing that computes an edit imports it.
"""
