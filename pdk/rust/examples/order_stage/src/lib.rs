//! Prepares order events for others: cancelled and small ones are dropped,
//! email and card are masked, the internal note goes, the customer is renamed,
//! and everything else stays byte for byte.

use millrace_pdk::*;

stage!(
    prepare,
    sample: [
        r#"{"key":"c-36404","value":{"order_id":"o-000000","customer_id":"c-36404","email":"jane.doe248@example.com","card":"4111000448434750","status":"paid","currency":"EUR","amount":125.05,"created_at":"2024-05-01T12:34:00Z","internal_note":"checked by ops","items":[{"sku":"A-345","qty":2,"price":19.99}],"address":{"city":"Berlin"}}}"#,
        r#"{"key":"c-99431","value":{"order_id":"o-000001","customer_id":"c-99431","email":"jane.doe533@example.com","card":"4111000388082644","status":"cancelled","currency":"EUR","amount":5.57,"created_at":"2024-05-01T12:34:01Z","internal_note":"checked by ops","items":[{"sku":"A-967","qty":2,"price":19.99}],"address":{"city":"Berlin"}}}"#,
    ],
    memory_mb: 16,
);

const MIN_AMOUNT: f64 = 5.0;

fn prepare(r: &Record, out: &mut Out) -> Result {
    let order = r.scan();
    let mut to = out.rewrite(&order);
    while let Some(member) = to.next()? {
        let value = member.value();
        if member.is("status") {
            if value.is("cancelled") {
                return out.drop();
            }
        } else if member.is("amount") {
            if value.as_f64().or_fail(2, "amount is no number")? < MIN_AMOUNT {
                return out.drop();
            }
        } else if member.is("customer_id") {
            to.rename("customer");
        } else if member.is("internal_note") {
            to.remove();
        } else if member.is("email") {
            let text = value.raw();
            let at = text.iter().position(|&c| c == b'@');
            to.splice(text.len().min(2)..at.unwrap_or(text.len() - 1), "***");
        } else if member.is("card") {
            to.splice(
                1..value.raw().len().saturating_sub(5).max(1),
                "************",
            );
        }
    }
    to.emit()
}
