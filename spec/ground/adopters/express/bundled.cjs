const pg = require('pg')
const { Sequelize } = require('sequelize')

const { live } = require('./life-of-a-key.cjs')

// A bundler does not see which driver Sequelize is going to require.
const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false, dialectModule: pg })

void live(sequelize).then((server) => console.log(`complete on ${server}`))
