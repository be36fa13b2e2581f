/**
 * Characters that could move the cursor of a terminal, hide or turn a text, or end a line. Texts of users may have any. The two joiners
 * (U+200C, U+200D) are not among them, because words of Persian and Hindi need them.
 */
export const unprintable = /[\p{Cc}\p{Zl}\p{Zp}]|(?![\u200C\u200D])\p{Cf}/gu
