/** A colour as red, green and blue, from 0 to 255. */
type Colour = [number, number, number]

/** The least contrast of text to its ground (WCAG 2.2, success criterion 1.4.3). */
const leastContrast = 4.5

const white: Colour = [255, 255, 255]
/** The lightest ground of the dark theme, as in `console.css`. */
const darkGround: Colour = [32, 35, 41]

/** True if white text can be read on a colour, and text of this colour on white. */
export function isReadableOnWhite(hex: string): boolean {
  return contrast(parse(hex), white) >= leastContrast
}

/** Mixes a colour with white until its text can be read on the ground of the dark theme. */
export function darkAccentOf(hex: string): string {
  const colour = parse(hex)
  for (let part = 0; part < 1; part += 0.05) {
    const mixed = colour.map((value) => Math.round(value + (255 - value) * part)) as Colour
    if (contrast(mixed, darkGround) >= leastContrast) return format(mixed)
  }
  return format(white)
}

function parse(hex: string): Colour {
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as Colour
}

function format(colour: Colour): string {
  return `#${colour.map((value) => value.toString(16).padStart(2, '0')).join('')}`
}

/** The contrast of two colours (WCAG 2.2, "contrast ratio"). */
function contrast(one: Colour, other: Colour): number {
  const [dark = 0, light = 0] = [luminance(one), luminance(other)].toSorted((a, b) => a - b)
  return (light + 0.05) / (dark + 0.05)
}

/** The relative luminance of a colour (WCAG 2.2, "relative luminance"). */
function luminance(colour: Colour): number {
  const [red, green, blue] = colour.map((value) => {
    const part = value / 255
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  }) as Colour
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}
