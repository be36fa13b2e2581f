// Prints what an editor shows of a file, as JSON: all errors, those of declarations included, and the hovers over calls of functions.
const { readFileSync } = require('node:fs')
const { resolve } = require('node:path')

const ts = require('typescript-5.9')

const [name, ...functions] = process.argv.slice(2)
const file = resolve(name)
const text = readFileSync(file, 'utf8')
const { options } = ts.parseJsonConfigFileContent(
  JSON.parse(readFileSync('tsconfig.json', 'utf8')),
  ts.sys,
  process.cwd(),
)
const service = ts.createLanguageService({
  getCompilationSettings: () => options,
  getScriptFileNames: () => [file],
  getScriptVersion: () => '1',
  getScriptSnapshot: (path) =>
    ts.sys.fileExists(path) ? ts.ScriptSnapshot.fromString(ts.sys.readFile(path)) : undefined,
  getCurrentDirectory: () => process.cwd(),
  getDefaultLibFileName: ts.getDefaultLibFilePath,
  fileExists: ts.sys.fileExists,
  readFile: ts.sys.readFile,
  readDirectory: ts.sys.readDirectory,
  directoryExists: ts.sys.directoryExists,
  getDirectories: ts.sys.getDirectories,
  realpath: ts.sys.realpath,
})

const hovers = functions.map((name) => {
  const call = `apiKeys.${name}(`
  const { displayParts } = service.getQuickInfoAtPosition(file, text.indexOf(call) + 8)
  return [name, ts.displayPartsToString(displayParts)]
})
const errors = ts
  .getPreEmitDiagnostics(service.getProgram())
  .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))
console.log(JSON.stringify({ errors, hovers: Object.fromEntries(hovers) }))
