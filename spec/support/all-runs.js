/** Makes properties play to their full length: see `runsOf`. */
process.env.RUNS = 'all'
