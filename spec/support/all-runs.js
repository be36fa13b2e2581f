/** Lets chance play as often as it takes to find what is rare: see `runsOf`. */
process.env.RUNS = 'all'
