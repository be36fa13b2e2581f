/** What is there at once where nothing has to be waited for, so that a request that needs no query needs no promise. */
export type MaybePromise<Value> = Value | Promise<Value>

/** Goes on with a value: at once where it is there, else when it is. */
export function andThen<Value, Result>(
  value: MaybePromise<Value>,
  goOn: (value: Value) => MaybePromise<Result>,
): MaybePromise<Result> {
  return value instanceof Promise ? value.then(goOn) : goOn(value)
}
