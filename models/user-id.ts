import { DataTypes, type AbstractDataTypeConstructor } from 'sequelize'

import type { UserIdType } from './storage-options'

export interface ModelOptions {
  schema: string
  userIdType: UserIdType
}

export function userIdDataType(type: UserIdType): AbstractDataTypeConstructor {
  switch (type) {
    case 'text':
      return DataTypes.TEXT
    case 'uuid':
      return DataTypes.UUID
    case 'integer':
      return DataTypes.INTEGER
    case 'bigint':
      return DataTypes.BIGINT
  }
}
