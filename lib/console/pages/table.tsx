import type { ComponentChildren, JSX } from 'preact'

/*
 * The parts of tables. Each names its role. The style shows rows as cards on narrow screens, and browsers then take the elements for
 * no table.
 */

interface TableProps {
  class: string
  /** The heading of each column: a text, or a `Heading`. */
  headings: readonly (string | JSX.Element)[]
  children: ComponentChildren
}

/** A table of rows. */
export function Table({ class: classes, headings, children }: TableProps) {
  return (
    <table class={classes} role="table">
      <thead role="rowgroup">
        <Row>
          {headings.map((heading) =>
            typeof heading === 'string' ? <Heading>{heading}</Heading> : heading,
          )}
        </Row>
      </thead>
      <tbody role="rowgroup">{children}</tbody>
    </table>
  )
}

/** The heading of a column. */
export function Heading(props: JSX.IntrinsicElements['th']) {
  return <th scope="col" role="columnheader" {...props} />
}

export function Row({ children }: { children: ComponentChildren }) {
  return <tr role="row">{children}</tr>
}

/** The cell that names a row. */
export function RowHeading(props: JSX.IntrinsicElements['th']) {
  return <th scope="row" role="rowheader" {...props} />
}

/** A cell. Its label stands beside it on narrow screens. */
export function Cell({ label, ...props }: JSX.IntrinsicElements['td'] & { label?: string }) {
  return <td role="cell" data-label={label} {...props} />
}
