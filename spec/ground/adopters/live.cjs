const { Sequelize } = require('sequelize')

const { live } = require('./life-of-a-key.cjs')

const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false })

void live(sequelize).then((server) => console.log(`complete on ${server}`))
