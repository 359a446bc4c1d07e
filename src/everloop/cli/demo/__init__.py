"""`everloop demo`: the main job, end to end.

* `pages` - the app: a task function, the shared session, the global pool. Start reading here
* `site` - a small site on loopback, with slow, big, failing and flaky pages
* `command` - parses, prepares, and chooses between
* `plain` - one process with an embedded worker, and
* `kill` - worker processes of which one is killed half-way
* `screen`, `report` - the live bar and the lines above it; the table and the sums at the end
"""
