"""`python -m bench.learning`: what a memory learns and forgets over four tasks, beside what others would have done.

plan        what is compared, on what, with which numbers; its digest names the folder of results
systems     every system that answers items, and the methods made of them
material    items, examples, replay and text that the plan asks for
training    one link of a chain of training steps
prompting   baselines that only write into the prompt
adapted     LoRA SFT of the base in the engine that also serves memories
routing     which memory serves a prompt
serving     a system answers a task's items
general     what a system still knows of ordinary text
pack        one file of JSON values that several processes append to
cells       finished pieces of work, all of a plan in one pack
schedule    which pieces, in what order; a killed run goes on
metrics     ACC, BWT, FWT, forgetting, intervals, paired comparisons
outcome     `learning.json`
page        `docs/results.md`
sections    `research/learning.md`
report      both pages, with `plots`
"""
